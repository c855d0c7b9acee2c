"""Brings commands of other processes to the controller, and keeps notes for them: queue states, a live picture.

Polls the mailbox; no sockets. Must not know who reads the notes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from flyteish._core.model.events import CancelRequested, QueueStateSet
from flyteish._core.model.ids import ROOT_ACTION
from flyteish._core.scheduling.pool_health import Record
from flyteish._core.state import State
from flyteish.errors import StoreError
from flyteish.interfaces import Command, Mailbox

if TYPE_CHECKING:
    from flyteish._controller.loop import Controller

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
PICTURE_SECONDS = 1.0
QUEUE_STATES = "queue-states"
PICTURE = "picture"
REASONS_SHOWN = 200


class QueuePicture(msgspec.Struct, frozen=True):
    """A queue at a moment."""

    name: str
    state: str
    running: int
    waiting: int
    entering: int
    active_runs: int
    pools: tuple[str, ...]


class PoolPicture(msgspec.Struct, frozen=True):
    """A pool at a moment."""

    name: str
    medium: str
    engine: str
    running: int
    capacity: int
    available: int | None
    cooling: bool
    price_per_hour: float
    preemptions: int = 0
    """Remembered ones, as all that follows (``Record``)."""
    stock_outs: int = 0
    score: float = 0.0
    churn_per_hour: float = 0.0
    mean_up: float = 0.0
    mean_down: float = 0.0


class Picture(msgspec.Struct, frozen=True):
    """What another process can know of a live controller."""

    at: float
    queues: tuple[QueuePicture, ...]
    pools: tuple[PoolPicture, ...]
    reasons: dict[str, tuple[str, int]] = {}
    """``run/action`` of the heads of the lines -> typed reason for not starting, place in line."""


class Mailman:
    """Lives on the controller's loop between ``open`` and ``close``."""

    def __init__(self, controller: Controller, mailbox: Mailbox) -> None:
        self._controller = controller
        self._mailbox = mailbox
        self._timer: asyncio.TimerHandle | None = None
        self._states: dict[str, str] = {}
        self._pictured = 0.0
        self._last = b""
        self._deaf = False

    def open(self) -> None:
        """Restore queue states that outlived the last session, and start polling."""
        kept = self._mailbox.get_note(QUEUE_STATES)
        self._states = msgspec.json.decode(kept, type=dict[str, str]) if kept else {}
        for queue, state in self._states.items():
            if self._controller.knows_queue(queue):
                self._controller.post(self._controller.take_fact, QueueStateSet(queue, state))
        self._mailbox.take()  # commands left for a controller that is gone
        self._poll()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def set_queue_state(self, queue: str, state: str) -> None:
        """An operator's word, from this process; any thread."""
        self._controller.post(self._set, queue, state)

    def _set(self, queue: str, state: str) -> None:
        self.keep(queue, state)
        self._controller.take_fact(QueueStateSet(queue, state))

    def keep(self, queue: str, state: str) -> None:
        """Remember a queue's state across restarts."""
        self._states[queue] = "draining" if state == "drained" else state
        self._mailbox.put_note(QUEUE_STATES, msgspec.json.encode(self._states))

    def _poll(self) -> None:
        if self._controller.over is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)
        try:
            commands = self._mailbox.take()
        except StoreError as error:  # if the store is really broken, the next entry of a journal says so to everybody
            _log.log(logging.DEBUG if self._deaf else logging.WARNING, "no commands can be taken: %s", error)
            self._deaf = True
            return
        self._deaf = False
        for command in commands:
            self._carry_out(command)
        now = self._controller.clock.now()
        if now - self._pictured >= PICTURE_SECONDS:
            self._pictured = now
            self._controller.post(self._controller.take_question, picture, self._keep_picture)

    def _carry_out(self, command: Command) -> None:
        controller = self._controller
        if command.kind == "abort":
            run, _, action = command.target.partition("/")
            reason = command.reason or "aborted from the command line"
            controller.post(controller.take_fact, CancelRequested(run, action or ROOT_ACTION, reason))
            return
        state = {"hold": "held", "drain": "draining", "activate": "active"}.get(command.kind)
        if state is not None and controller.knows_queue(command.target):
            controller.post(self._set, command.target, state)

    def _keep_picture(self, found: Any, error: BaseException | None) -> None:
        if found is None:
            return
        data = msgspec.json.encode(msgspec.structs.replace(found, at=0.0))
        if data != self._last:
            self._last = data
            try:
                self._mailbox.put_note(PICTURE, msgspec.json.encode(found))
            except StoreError as error:  # the picture is for people; what must not be lost is in the journals
                _log.debug("no picture could be kept: %s", error)


def picture(state: State, now: float) -> Picture:
    """The books as another process may see them."""
    assert state.books is not None
    books = state.books
    queues = tuple(
        QueuePicture(
            name=name,
            state=book.state,
            running=book.running - book.ahead,
            waiting=book.waiting + book.held + book.ahead,
            entering=book.entering,
            active_runs=book.active_runs,
            pools=tuple(pool.config.name for pool in book.pools),
        )
        for name, book in books.queues.items()
    )
    pools = tuple(
        PoolPicture(
            name=name,
            medium=book.config.medium,
            engine=book.config.engine,
            running=book.running - book.ahead,
            capacity=book.config.capacity,
            available=book.available,
            cooling=now < book.cooling_until,
            price_per_hour=book.prices.latest,
            **_rounded(book.memory.record(now)),
        )
        for name, book in books.pools.items()
    )
    return Picture(now, queues, pools, _reasons(state, now))


def _rounded(record: Record) -> dict[str, Any]:
    """As exact as anybody reads it, so that a picture in which nothing happens does not change all the time."""
    return {name: float(f"{value:.2g}") if type(value) is float else value for name, value in record._asdict().items()}


def _reasons(state: State, now: float) -> dict[str, tuple[str, int]]:
    assert state.books is not None
    found: dict[str, tuple[str, int]] = {}
    for book in state.books.queues.values():
        for line in book.lines.values():
            head = line.head()
            if head is None or len(found) >= REASONS_SHOWN:
                continue
            reason = state.books.reason(head, now)
            if reason is not None:
                found[f"{head.run}/{head.id}"] = (reason[0].value, reason[1])
    return found
