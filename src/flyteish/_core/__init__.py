"""The pure core: decides everything, does nothing.

No await, no clock, no randomness, no files, no network, no logging: ``now`` and random numbers are
arguments. The controller, the simulator and replay all drive this same code.
"""
