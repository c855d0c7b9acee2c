"""Queues, pools and who is admitted next.

Knows what waits and what is free; must not know why an action waits or what becomes of it.
"""
