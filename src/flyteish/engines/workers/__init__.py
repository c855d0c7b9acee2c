"""The engine's side of workers: what every engine needs whose attempts run in processes of their own.

``listener`` is where they connect over a network, ``door`` hears who is there, ``peer`` is a worker that was let in,
``stream`` carries the bytes. Must not know how workers are started, chosen or ended, which is each engine's own
business.
"""
