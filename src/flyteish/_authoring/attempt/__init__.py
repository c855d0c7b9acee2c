"""What a running attempt sees: ``ctx()``, checkpoints, notices, epochs.

Knows how an attempt asks its controller (``Link``); must not know who runs it, nor how tasks are declared.
"""
