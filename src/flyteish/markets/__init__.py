"""Spot markets and prices: schedules, recordings, and those who follow them for a session or a simulation.

The same for real and virtual time; must not know which shell asks.
"""
