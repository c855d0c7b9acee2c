"""Where runs are remembered: ``memory`` for the length of a process, ``sqlite`` through ``kill -9``.

Both pass one contract suite (``tests/contracts/test_run_store.py``). Nothing is re-exported here, so that a
session with a store in memory never loads SQLite; a store must not know what the events in its journal mean.
"""
