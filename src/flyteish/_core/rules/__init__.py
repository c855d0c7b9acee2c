"""The rules, each a function of plain facts: retries, ends, placement, deadlines, checkpoint intervals.

They see no state and change none.
"""
