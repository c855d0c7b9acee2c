"""Workloads from recorded runs: what each action worked, saved and called, read from the run's journal.

Estimates work from running time: waiting for children, saves, and what was lost are taken out. Must not know where a
journal is kept, nor what is simulated with the workloads.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flyteish._core.model.records import CHAIN_KEPT, Action, AttemptRecord, End, Phase, RunRecord
from flyteish.errors import ConfigurationError
from flyteish.simulation.workload import Calls, Workload, WorkModel

_RAISED: Final = frozenset((End.USER_ERROR, End.MAX_RUNTIME))


def recorded(*runs: Any, replay_failures: bool = False) -> tuple[Workload, ...]:
    """The workloads of recorded runs, each beginning as long after the first as it did then.

    Args:
        runs: ``Run`` objects, or the records that their journals replay to. Runs that go on count as far as they are.
        replay_failures: user attempts that raised do so again, after as much work. Default False: all succeed.

    Raises:
        ConfigurationError: there is no run, one is no run, or nothing of it has run.
    """
    records = [_record(run) for run in runs]
    if not records:
        raise ConfigurationError("recorded: runs=() is not accepted: expected at least one run")
    first = min(record.submitted_at for record in records)
    found = []
    for record in records:
        workload = _Reader(record, replay_failures).workload()
        found.append(msgspec.structs.replace(workload, start=record.submitted_at - first))
    return tuple(found)


def _record(run: Any) -> RunRecord:
    replayed = getattr(run, "record", None)
    record: object = replayed() if callable(replayed) else run
    if not isinstance(record, RunRecord):
        raise ConfigurationError(f"recorded: runs={run!r} is not accepted: expected runs, or records of runs")
    if not record.root:
        raise ConfigurationError(f"recorded: {run!r} has no journal, so there is nothing to go by")
    return record


class _Stretch(NamedTuple):
    """One attempt at its own work: when, less the times at which it waited for children."""

    begun: float
    """When its code began, seconds since the epoch."""
    ended: float
    base: float
    """Seconds of own work that it began with."""
    waits: tuple[tuple[float, float], ...]

    def worked(self, until: float) -> float:
        """Seconds of the action's own work done by then, with what it began with."""
        until = min(max(until, self.begun), self.ended)
        idle = sum(max(0.0, min(end, until) - max(start, self.begun)) for start, end in self.waits)
        return self.base + max(0.0, until - self.begun - idle)


class _Reader:
    """Reads one run."""

    def __init__(self, record: RunRecord, replay_failures: bool) -> None:
        self._record = record
        self._replay_failures = replay_failures
        self._now = record.ended_at or _latest(record)
        self._children: dict[str, list[Action]] = {}
        for action in record.actions.values():
            if action.parent is not None:
                self._children.setdefault(action.parent, []).append(action)

    def workload(self) -> Workload:
        """The root's, with all below it.

        Raises:
            ConfigurationError: it never ran.
        """
        root = self._record.root_action
        if not _ran(root):
            raise ConfigurationError(
                f"recorded: nothing of run {self._record.id} has run, so there is nothing to go by"
            )
        # Callees first, without recursion: a chain of calls may be longer than Python's stack.
        order = [root]
        for action in order:
            order.extend(child for child in self._children.get(action.id, ()) if _ran(child))
        made: dict[str, Workload] = {}
        for action in reversed(order):
            made[action.id] = Workload(
                action.profile.settings, self._model(action, made), name=action.profile.task or "task"
            )
        return made[root.id]

    def _model(self, action: Action, made: dict[str, Workload]) -> WorkModel:
        children = sorted(
            (child for child in self._children.get(action.id, ()) if child.id in made),
            key=lambda child: child.submitted_at,
        )
        stretches = self._stretches(action, children)
        every, save = _cadence(action)
        work = max(0.0, stretches[-1].worked(stretches[-1].ended) - save * _saves(action))
        return WorkModel(
            work=work,
            checkpoint_every=every,
            save_seconds=save,
            startup=_startup(action),
            on_notice="save" if action.checkpoints else "ignore",
            fails_at=self._failures(action, stretches, children) if self._replay_failures else (),
            children=self._calls(children, stretches, made, work),
        )

    def _stretches(self, action: Action, children: Sequence[Action]) -> list[_Stretch]:
        waits = _union((child.submitted_at, child.ended_at or self._now) for child in children)
        found: list[_Stretch] = []
        base = 0.0
        for attempt in action.attempts:
            if not attempt.placed_at:
                continue
            begun = attempt.running_at or attempt.placed_at
            found.append(_Stretch(begun, attempt.ended_at or self._now, base, waits))
            if attempt.last_checkpoint_at:
                base = found[-1].worked(attempt.last_checkpoint_at)
        return found

    def _calls(
        self, children: Sequence[Action], stretches: Sequence[_Stretch], made: dict[str, Workload], work: float
    ) -> tuple[Calls, ...]:
        """Calls that were open at the same time were made together; others one after the other."""
        groups: list[list[Action]] = []
        open_until = 0.0
        for child in children:
            if not groups or child.submitted_at >= open_until:
                groups.append([])
            groups[-1].append(child)
            open_until = max(open_until, child.ended_at or self._now)
        return tuple(
            Calls(tuple(made[child.id] for child in group), at=min(work, _place(group[0].submitted_at, stretches)))
            for group in groups
        )

    def _failures(
        self, action: Action, stretches: Sequence[_Stretch], children: Sequence[Action]
    ) -> tuple[float | None, ...]:
        """By user attempt: after how much work it raised. One that raised because a child failed is not counted."""
        found: dict[int, float] = {}
        attempts = [attempt for attempt in action.attempts if attempt.pool]
        for attempt, stretch in zip(attempts, stretches, strict=True):
            if attempt.end in _RAISED and not _failed_by_child(stretch, children):
                found[attempt.user_attempt] = stretch.worked(stretch.ended)
        return tuple(found.get(number) for number in range(1, max(found, default=0) + 1))


def _ran(action: Action) -> bool:
    """Results from the cache, and actions that never got a machine, took no time of anybody's."""
    return any(attempt.placed_at for attempt in action.attempts)


def _latest(record: RunRecord) -> float:
    """The last thing that is known of a run that is not over."""
    times = [record.submitted_at]
    for action in record.actions.values():
        times += (action.submitted_at, action.ended_at)
        for attempt in action.attempts:
            times += (attempt.admitted_at, attempt.running_at, attempt.ended_at, attempt.last_checkpoint_at)
    return max(times)


def _union(intervals: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def _place(at: float, stretches: Sequence[_Stretch]) -> float:
    """Own work done at that time."""
    stretch = next((each for each in reversed(stretches) if each.begun <= at), stretches[0])
    return stretch.worked(at)


def _failed_by_child(stretch: _Stretch, children: Sequence[Action]) -> bool:
    return any(
        child.phase in (Phase.FAILED, Phase.TIMED_OUT) and stretch.begun <= child.ended_at <= stretch.ended
        for child in children
    )


def _cadence(action: Action) -> tuple[float | None, float]:
    """Seconds of work between two checkpoints, and of a save, as seen in the newest ones; None: it saved none."""
    records = action.checkpoints
    if not records:
        return None, 0.0
    save = statistics.median(record.save_seconds for record in records)
    attempts = {attempt.generation: attempt for attempt in action.attempts}
    on_time: list[float] = []
    hurried: list[float] = []
    for index, record in enumerate(records):
        attempt = attempts[record.generation]
        earlier = records[index - 1] if index else None
        if earlier is not None and earlier.generation == record.generation:
            since = earlier.saved_at
        elif earlier is not None or record.sequence == 1:
            since = attempt.running_at or attempt.placed_at
        else:
            continue  # the one before it is not kept
        last = index + 1 == len(records) or records[index + 1].generation != record.generation
        # The last save of an attempt that had a notice came when the notice came.
        gaps = hurried if last and attempt.notice else on_time
        gaps.append(record.saved_at - record.save_seconds - since)
    return max(statistics.median(on_time or hurried), 0.001), save


def _saves(action: Action) -> int:
    """How many checkpoints were committed; of a long chain the newest are kept, and its end says how long it is."""
    records = action.checkpoints
    return len(records) if len(records) < CHAIN_KEPT else records[-1].sequence


def _startup(action: Action) -> float | None:
    """As seen, in the middle; None where no attempt's code began."""
    seen = [_waited(attempt) for attempt in action.attempts if attempt.running_at]
    return statistics.median(seen) if seen else None


def _waited(attempt: AttemptRecord) -> float:
    return max(0.0, attempt.running_at - attempt.placed_at)
