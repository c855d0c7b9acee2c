"""Values as bytes: which types travel, how they are named, checked and written; errors as documents.

Must not know tasks or attempts.
"""
