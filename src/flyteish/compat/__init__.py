"""For programs that come from elsewhere: the names and habits of other systems, over flyteish's own tasks.

Translates and adds nothing of its own: what a program gets here it can say without it. Imports none of those systems.
"""
