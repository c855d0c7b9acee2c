"""What attempts cost: bills, their sums, and the prices that hold while they run.

Must not know why an attempt ran, nor where a price comes from.
"""
