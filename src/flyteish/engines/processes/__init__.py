"""The processes engine: attempts in warm worker processes, which can be killed.

``engine`` hands out attempts, ``backlog`` is what waits, ``worker_pool`` keeps track of who is at what,
``worker_process`` is one process, ``exit_codes`` reads how one ended. Must not
decide anything about attempts.
"""
