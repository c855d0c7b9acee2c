"""The nouns of the core: identities, settings, queues, events, effects and the records that they make.

No decision is made here.
"""
