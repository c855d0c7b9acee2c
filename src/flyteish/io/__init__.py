"""Large content by reference: files, directories and data frames as arguments and results of tasks.

``files`` has what programs use, ``content`` what File and Dir share, ``local_copies`` where content is while in use.
"""

from flyteish.io.files import DataFrame, Dir, File

__all__ = ["DataFrame", "Dir", "File"]
