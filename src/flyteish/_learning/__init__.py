"""What sessions learn of tasks and machines and keep for later: documents, and forecasts made from them.

Must not decide anything about a run: what is learned is a hint to the core and to people.
"""
