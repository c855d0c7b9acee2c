"""Shows the progress of a run on standard error: live and in colour on a terminal, as plain lines elsewhere.

Plain lines are made to be searched: time, action, task and text, in this order, and nothing is ever drawn over. Must
not know where progress comes from.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

from flyteish._core.wording import counted, short_span
from flyteish.cli.formatting import COLOURS, clock
from flyteish.cli.progress import News, Progress

KINDS: Final = ("waiting", "spot", "on-demand", "succeeded", "failed", "aborted", "timed_out")
_MANY: Final = 100
_SUMMARY_SECONDS: Final = 10.0
_RECENT: Final = 6


class Display(Protocol):
    """Told of news, and often that time goes by."""

    def show(self, news: Sequence[News], progress: Progress) -> None:
        """Called a few times a second, also without news."""

    def close(self) -> None:
        """Nothing more comes; leave the terminal as it was."""


class Silence:
    """``--quiet``."""

    def show(self, news: Sequence[News], progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A line for each event; in a run of many actions only for what is unusual, and a count now and then."""

    def __init__(self, run: str, task: str) -> None:
        self._heading = f"run {run} of {task}"
        self._counted_at = time.monotonic()
        self._many = False

    def show(self, news: Sequence[News], progress: Progress) -> None:
        if self._heading and progress.seen:  # a refused run is not on record, and there is nothing to resume
            _say(self._heading)
            self._heading = ""
        for each in news:
            if each.unusual or not self._many:
                where = f"{each.action} {each.task} " if each.action else ""
                _say(f"{clock(each.at)} {where}{each.text}")
        if not self._many and progress.actions > _MANY:
            self._many = True
            _say(f"more than {_MANY} actions: from here on only what is out of the ordinary, and counts")
        if time.monotonic() - self._counted_at >= _SUMMARY_SECONDS:
            self._counted_at = time.monotonic()
            _say(f"{clock(time.time())} {counts_text(progress)}")

    def close(self) -> None:
        pass


class Live:
    """Counts and the latest news, redrawn in place; what tasks print scrolls by above."""

    def __init__(self, run: str, task: str) -> None:
        from rich.console import Console
        from rich.live import Live as Area

        self._run, self._task = run, task
        self._began = time.monotonic()
        self._recent: deque[News] = deque(maxlen=_RECENT)
        self._area = Area(console=Console(stderr=True), auto_refresh=False, transient=True)
        self._area.start()

    def show(self, news: Sequence[News], progress: Progress) -> None:
        for each in news:
            if each.unusual:  # stays on the screen
                self._area.console.print(_line(each))
            else:
                self._recent.append(each)
        self._area.update(self._drawn(progress), refresh=True)

    def close(self) -> None:
        self._area.stop()

    def _drawn(self, progress: Progress) -> Any:
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{self._run} ", style="bold")
        text.append(f"{self._task}  {short_span(time.monotonic() - self._began)}\n")
        for kind in KINDS:
            if count := progress.counts[kind]:
                text.append(f"  {_kind_text(kind)} {count}", style=COLOURS.get(kind, ""))
        if progress.preemptions:
            text.append(f"  preemptions {progress.preemptions}", style=COLOURS["preempted"])
        for each in self._recent:
            text.append("\n").append(_line(each))
        return text


def _line(news: News) -> Any:
    from rich.text import Text

    style = COLOURS.get(news.word, "bold" if news.unusual else "")
    return Text.assemble((f"{clock(news.at)} ", "dim"), f"{news.task} ", (news.text, style))


def display_for(run: str, task: str, quiet: bool) -> Display:
    """The one that fits: quiet, a terminal, or anything else."""
    if quiet:
        return Silence()
    return Live(run, task) if sys.stderr.isatty() else Lines(run, task)


def counts_text(progress: Progress) -> str:
    """``3 actions: waiting 1, running on spot 1, succeeded 1``."""
    kinds = ", ".join(f"{_kind_text(kind)} {progress.counts[kind]}" for kind in KINDS if progress.counts[kind])
    return f"{counted(progress.actions, 'action')}: {kinds}"


def _kind_text(kind: str) -> str:
    return f"running on {kind}" if kind in ("spot", "on-demand") else kind.replace("_", " ")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
