"""Where the output of attempts is kept. Which kind of store it is, its address tells.

Must not know what is said, nor by whom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyteish.errors import ConfigurationError

if TYPE_CHECKING:
    from flyteish.interfaces import LogStore

__all__ = ["open_logs"]


def open_logs(url: str) -> LogStore:
    """Open the logs at ``file:///absolute/path``, new ones in ``memory:``, or ``none:``, which keeps nothing.

    Raises:
        ConfigurationError: the URL is of no known kind.
    """
    if url == "memory:":
        from flyteish.logs.memory import MemoryLogs

        return MemoryLogs()
    if url == "none:":
        from flyteish.logs.nowhere import NoLogs

        return NoLogs()
    if isinstance(url, str) and url.startswith("file:///"):
        from pathlib import Path
        from urllib.parse import unquote

        from flyteish.logs.files import FileLogs

        return FileLogs(Path(unquote(url.removeprefix("file://"))))
    raise ConfigurationError(
        f"url={url!r} is not accepted for logs: expected 'file:///absolute/path', 'memory:' or 'none:'"
    )
