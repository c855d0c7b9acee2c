"""Runs attempts: in a worker process of its own, or inline in the caller's process.

``runner`` turns one order into evidence; the rest is the worker process around it (``python -m
flyteish._worker``) and the messages it exchanges with its engine. Nothing here decides about retries,
placement or queues.
"""
