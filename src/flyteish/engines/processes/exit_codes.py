"""What the exit of a worker process says about the attempt that it was at.

Must not judge: evidence says what was seen.
"""

from __future__ import annotations

import signal

from flyteish._core.model.events import Evidence


def read_exit_code(code: int) -> Evidence:
    """What a worker's exit by itself says about the attempt that it was at."""
    if code == -signal.SIGKILL:
        return Evidence(
            vanished="its worker was killed by SIGKILL from outside (the kernel does so when memory runs out)"
        )
    return Evidence(exit_code=code)
