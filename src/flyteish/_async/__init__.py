"""Ways between threads and event loops: feeds into a loop, and waiting in a coroutine for what takes time.

Knows nothing of tasks, attempts or runs.
"""
