"""Where the output of attempts is kept: in files, in memory, or nowhere.

Must not know what is said, nor by whom.
"""
