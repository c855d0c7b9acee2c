"""Deterministic simulation of the core: one seed is one history of submissions, faults and time, checked throughout.

``python -m tests.histories`` plays thousands of them, and shrinks and tells the one that fails. A new event of the core
gets its row in ``steps.STEPS``; a new promise its function in ``promises``.
"""
