"""Which flyteish this is. Must not know anything else."""

from typing import Final

__version__: Final = "0.1.0"
"""The one in pyproject.toml."""
