"""The inline engine: attempts in this process, on the caller's event loop or on threads.

``engine`` runs them; the rest is what it stands on. Must not decide anything about attempts.
"""
