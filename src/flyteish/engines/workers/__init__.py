"""The engine's side of workers: what every engine needs whose attempts run in processes of their own.

``requests`` serves what running attempts ask. Must not know how workers are started, chosen or ended: that is each
engine's own business.
"""
