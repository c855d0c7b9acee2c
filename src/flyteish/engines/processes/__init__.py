"""The processes engine: attempts in warm worker processes, which can be killed.

``engine`` hands out attempts, ``worker_pool`` keeps track of them, ``worker_process`` is one process. Must not
decide anything about attempts.
"""
