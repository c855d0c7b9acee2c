"""Tasks: environments, declared functions, and what happens when one is called.

Stands on ``attempt`` and ``values``; must not know how a call is carried out.
"""
