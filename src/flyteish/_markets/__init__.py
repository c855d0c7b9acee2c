"""Markets at work: which attempts lose their machine now, and how much their pools can hold.

What the controller does in real time and the simulator in virtual time, written once for both. Must not know either,
nor whether the seconds that it is given are real.
"""
