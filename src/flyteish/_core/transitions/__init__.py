"""How an event changes the state: one file for each kind of fact.

Only called by ``lifecycle``; nothing outside the core imports a transition.
"""
