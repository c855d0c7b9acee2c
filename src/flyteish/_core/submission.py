"""What a queue refuses at the door, and in which words: before anything is recorded.

Reads the state, changes nothing. Must not know what happens to work that is let in (spec: queues).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flyteish._core.actions import Action
from flyteish._core.events import RunSubmitted
from flyteish._core.state import State

if TYPE_CHECKING:
    from flyteish._core.admission import Books, QueueBook


class Refusal(NamedTuple):
    """A submission that is not accepted."""

    error: str
    """Name of the class in ``flyteish.errors``."""
    message: str


def check_run(state: State, event: RunSubmitted) -> Refusal | None:
    """Whether a run may begin: its queue exists, takes work, and allows another run of the task."""
    assert state.books is not None
    book = state.books.queues.get(event.queue)
    if book is None:
        return _unknown(state.books, event.queue, event.task)
    if book.state in ("draining", "drained"):
        return _draining(book, event.task)
    if book.config.overlap == "skip":
        for run in state.runs.values():
            if run.task == event.task and run.queue == event.queue and not run.ended_at:
                message = (
                    f"run of {event.task} skipped: run {run.id} is still active in queue {event.queue!r}"
                )
                return Refusal("RunSkippedError", f"{message} (overlap='skip')")
    return None


def check_submission(state: State, action: Action) -> Refusal | None:
    """Whether an action may enter its queue."""
    assert state.books is not None
    settings = action.profile.settings
    book = state.books.queues.get(settings.queue)
    if book is None:
        return _unknown(state.books, settings.queue, action.profile.task)
    # Work in flight finishes while a queue drains, and its children are part of it.
    if book.state in ("draining", "drained") and action.parent is None:
        return _draining(book, action.profile.task)
    depth = book.config.depth
    if depth and book.counted >= depth and book.config.on_full == "refuse":
        message = f"queue {book.config.name!r} is full: {book.counted} waiting or running, depth={depth}"
        return Refusal("ResourceExhaustedError", f"{action.profile.task} refused: {message}")
    return _never_fits(book, action)


def _never_fits(book: QueueBook, action: Action) -> Refusal | None:
    """Work that no state of the queue could start would wait for ever: say so now."""
    settings, task, queue = action.profile.settings, action.profile.task, book.config.name
    policy = settings.interruptible
    needs_on_demand = policy is None or policy.fallback != "never"
    if needs_on_demand and not book.on_demand:
        why = "its final attempt must be" if policy is not None else "it is not interruptible, so it must be"
        cure = "add an on-demand pool to the queue or set SpotPolicy(fallback='never')"
        message = f"{task}: queue {queue!r} feeds no on-demand pool, but {why} on-demand; {cure}"
        return Refusal("ConfigurationError", message)
    if not needs_on_demand and not book.spot:
        return Refusal(
            "ConfigurationError", f"{task}: queue {queue!r} feeds no spot pool, but fallback='never'"
        )
    amounts = settings.amounts
    pools = book.on_demand if needs_on_demand else book.spot
    if not amounts.within(book.limit) or not any(amounts.within(pool.limit) for pool in pools):
        message = f"{task}: {settings.resources!r} is more than queue {queue!r} or any of its pools ever has"
        return Refusal("ConfigurationError", message)
    return None


def _unknown(books: Books, queue: str, task: str) -> Refusal:
    known = ", ".join(sorted(books.queues)) or "none"
    return Refusal("UnknownQueueError", f"{task}: unknown queue {queue!r}; known queues: {known}")


def _draining(book: QueueBook, task: str) -> Refusal:
    return Refusal("ResourceExhaustedError", f"{task} refused: queue {book.config.name!r} is {book.state}")
