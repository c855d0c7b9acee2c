"""The controller: the shell that drives the core in real time, over real engines and stores.

It carries out what the core decides and tells it what happened. Must not decide retries, placement or order itself.
"""
