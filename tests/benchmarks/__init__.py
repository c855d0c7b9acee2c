"""Benchmarks: ``python -m tests.benchmarks [NAME ...]``, or ``nox -s benchmarks``. They assert on nothing."""
