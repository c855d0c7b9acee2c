"""``flyteish abort`` and ``flyteish queue``: ask the controller that owns the store, or act in its place.

A live controller gets a command through the mailbox and is watched until it took effect. Where none lives, what the
command means is written down for the next one. Must not reach into a controller.
"""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from flyteish._controller.commands import QUEUE_STATES
from flyteish._core import lifecycle
from flyteish._core.model.effects import Record
from flyteish._core.model.events import CancelRequested, Entry, RunRecovered
from flyteish._core.model.ids import ROOT_ACTION
from flyteish._core.model.records import TERMINAL
from flyteish._core.replay import find_action, state_of
from flyteish._core.state import State
from flyteish._core.wording import span
from flyteish.cli.exit_codes import ExitCode, UsageError
from flyteish.cli.formatting import print_json
from flyteish.cli.records import Records, split
from flyteish.errors import StoreError
from flyteish.interfaces import Batch, Command, RunRow

_LOOK_SECONDS: Final = 0.05
_QUEUE_WAIT: Final = 5.0
_STATES: Final = {"hold": "held", "drain": "draining", "activate": "active"}


# -- abort -----------------------------------------------------------------------------------------------------------


def abort(args: Namespace) -> int:
    """``flyteish abort RUN[/ACTION]``."""
    records = Records(args)
    name, wanted = split(args.run, None)
    row = records.run(name)
    action = ROOT_ACTION if wanted is None else find_action(records.record(row.run), wanted).id
    reason = args.reason or "aborted from the command line"
    target = row.run if action == ROOT_ACTION else f"{row.run}/{action}"
    before = _phase(records, row.run, action)
    if before is not None:
        return _tell(args, target, before, f"{target} is over already: {before}")
    if records.owner is None:
        if action != ROOT_ACTION:
            raise UsageError(
                f"run {row.run} is not running, and resumed it would call {action} again: abort the whole run, "
                f"or go on with it: flyteish resume {row.run}"
            )
        if cancel_interrupted(records, row, reason):
            return _tell(args, target, "aborted", f"run {row.run} was interrupted; it is marked as aborted now")
        text = (
            f"run {row.run} has attempts that may have outlived their controller; they are stopped, and it is over, "
            "once a session takes it up that has their engine: Session(engines=..., recover='all')"
        )
        return _tell(args, target, "asked", text)
    records.store.post(Command("abort", f"{row.run}/{action}", reason))
    if _comes_true(lambda: _phase(records, row.run, action) is not None, args.wait):
        phase = _phase(records, row.run, action) or ""
        return _tell(args, target, phase, f"{target} {phase.replace('_', ' ')}")
    return _tell(
        args,
        target,
        "asked",
        f"asked process {records.owner} to abort {target}; it is not over after {span(args.wait)}: its attempts may "
        f"be cleaning up, or that process does not work on this run",
    )


def _phase(records: Records, run: str, action: str) -> str | None:
    """How it ended; None: it has not."""
    row = records.store.run(run)
    if row is not None and row.ended_at is not None and action == ROOT_ACTION:
        return row.phase
    if action == ROOT_ACTION:
        return None
    found = records.record(run).actions[action]
    return found.phase.value if found.phase in TERMINAL else None


def cancel_interrupted(records: Records, row: RunRow, reason: str) -> bool:
    """Journal that a run is cancelled that no controller works on; whether it is over by that.

    Raises:
        StoreLockedError: a controller took the store over at this moment.
    """
    store = records.store
    store.open()
    try:
        # Read again: now nobody else can write.
        entries, after = cancelled(row, (entry for _, entry in store.read(row.run)), reason, time.time())
        committed: list[BaseException | None] = []
        done = threading.Event()

        def written(error: BaseException | None) -> None:
            committed.append(error)
            done.set()

        store.append(Batch([(row.run, entry) for entry in entries], (after,)), written)
        done.wait()
    finally:
        store.close()
    if committed[0] is not None:
        raise StoreError(f"run {row.run} could not be marked as aborted: {committed[0]}") from committed[0]
    return after.ended_at is not None


def cancelled(row: RunRow, entries: Iterable[Entry], reason: str, now: float) -> tuple[list[Entry], RunRow]:
    """What to journal for a run that is cancelled while nobody works on it, and its row from then on.

    Attempts died with their controller, but for those that may have outlived it: nobody can tell from here, so they
    are left for the next one to stop.
    """
    known = list(entries)
    state: State = state_of(known)
    added: list[Entry] = []
    last_at = max((entry.at for entry in known), default=now)
    living = tuple(
        (action.id, action.generation)
        for action in state.runs[row.run].actions.values()
        if action.current is not None and action.current.may_outlive
    )
    for event in (RunRecovered(row.run, living, last_at), CancelRequested(row.run, ROOT_ACTION, reason)):
        state, effects = lifecycle.apply(state, event, now)
        added += [Entry(effect.at, effect.event) for effect in effects if isinstance(effect, Record)]
    record = state.runs[row.run]
    ended_at = record.ended_at or None
    return added, msgspec.structs.replace(row, phase=record.phase, ended_at=ended_at, actions=len(record.actions))


# -- queues ----------------------------------------------------------------------------------------------------------


def queue(args: Namespace) -> int:
    """``flyteish queue hold|drain|activate NAME``."""
    records = Records(args)
    name = records.queue_name(args.queue)
    state = _STATES[args.verb]
    if records.owner is None:
        kept = {**records.queue_states(), name: state}
        records.store.put_note(QUEUE_STATES, msgspec.json.encode(kept))
        return _tell(args, name, state, f"queue {name} will be {state} when a session opens")
    records.store.post(Command(args.verb, name))
    if _comes_true(lambda: records.queue_states().get(name) == state, _QUEUE_WAIT):
        return _tell(args, name, state, f"queue {name} is {state}")
    text = f"asked process {records.owner}, which has not answered within {span(_QUEUE_WAIT)}"
    return _tell(args, name, "asked", text)


# -- both ------------------------------------------------------------------------------------------------------------


def _comes_true(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _tell(args: Namespace, target: str, outcome: str, text: str) -> int:
    if args.json:
        print_json({"target": target, "outcome": outcome, "message": text})
    else:
        print(text)
    return ExitCode.STORE if outcome == "asked" else ExitCode.OK
