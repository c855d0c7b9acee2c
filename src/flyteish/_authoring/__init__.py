"""What a task's author writes, turned into data that travels: signatures, values, declarations.

Must not know who runs a task, where, or when: nothing here imports the controller, an engine or a store.
"""
