"""Brings commands of other processes to the controller, and keeps notes for them: queue states, a live snapshot.

Polls the mailbox; no sockets. Must not know who reads the notes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any

import msgspec

from flyteish._controller.facts import Asked, Happened, Recipient
from flyteish._controller.snapshot import snapshot
from flyteish._core.model.events import CancelRequested, QueueStateSet
from flyteish._core.model.ids import ROOT_ACTION
from flyteish.errors import StoreError
from flyteish.interfaces import Command, Mailbox

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
SNAPSHOT_SECONDS = 1.0
QUEUE_STATES = "queue-states"
SNAPSHOT = "picture"


class Commands:
    """Lives on the controller's loop between ``open`` and ``close``. ``queues`` are those that there are."""

    def __init__(self, controller: Recipient, mailbox: Mailbox, queues: Collection[str]) -> None:
        self._controller = controller
        self._queues = queues
        self._mailbox = mailbox
        self._timer: asyncio.TimerHandle | None = None
        self._states: dict[str, str] = {}
        self._looked_at = 0.0
        self._last = b""
        self._deaf = False

    def open(self) -> None:
        """Restore queue states that outlived the last session, and start polling."""
        kept = self._mailbox.get_note(QUEUE_STATES)
        self._states = msgspec.json.decode(kept, type=dict[str, str]) if kept else {}
        for queue, state in self._states.items():
            if queue in self._queues:
                self._controller.post(Happened(QueueStateSet(queue, state)))
        self._mailbox.take()  # commands left for a controller that is gone
        self._poll()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def set_queue_state(self, queue: str, state: str) -> None:
        """An operator's word, from this process; any thread."""

        def done(why: str | None) -> None:
            if why is None:
                self.keep(queue, state)

        self._controller.post(Happened(QueueStateSet(queue, state), done))

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
        if now - self._looked_at >= SNAPSHOT_SECONDS:
            self._looked_at = now
            self._controller.post(Asked(snapshot, self._keep_snapshot))

    def _carry_out(self, command: Command) -> None:
        if command.kind == "abort":
            run, _, action = command.target.partition("/")
            reason = command.reason or "aborted from the command line"
            self._controller.post(Happened(CancelRequested(run, action or ROOT_ACTION, reason)))
            return
        state = {"hold": "held", "drain": "draining", "activate": "active"}.get(command.kind)
        if state is not None and command.target in self._queues:
            self.set_queue_state(command.target, state)

    def _keep_snapshot(self, found: Any, error: BaseException | None) -> None:
        if found is None:
            return
        data = msgspec.json.encode(msgspec.structs.replace(found, at=0.0))
        if data != self._last:
            self._last = data
            try:
                self._mailbox.put_note(SNAPSHOT, msgspec.json.encode(found))
            except StoreError as error:  # the snapshot is for people; what must not be lost is in the journals
                _log.debug("no snapshot could be kept: %s", error)
