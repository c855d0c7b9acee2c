"""Runs attempts: in a worker process of its own, or inline in the caller's process.

``runner`` turns one order into what is seen of its end. ``worker`` is the process around it (``python -m
flyteish._worker``), ``messages`` what it says to its engine and hears from it, ``channel`` and ``connection`` how that
arrives, over a network by ``reconnect``; ``checks`` is what an engine looks at before it believes any of it. Nothing
here decides about retries, placement or queues.
"""
