"""What came of a simulation: one row for each run, and how the pools were used over time.

Kept in packed arrays, for a simulation may have a million runs. Must not know how the world was driven.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from flyteish._core.model.queues import SPOT
from flyteish._core.model.records import SUCCEEDED, AttemptRecord, End, Phase, RunRecord

if TYPE_CHECKING:
    from flyteish.simulation.world import VirtualWorld

_SUCCEEDED: Final = End.SUCCEEDED
_TIMED_OUT: Final = Phase.TIMED_OUT
SAMPLES: Final = 512
"""Of the timeline, at most; when there are more, every other one goes."""


class Tally:
    """Fed by a world while it runs."""

    def __init__(self, on_demand_price: float | None) -> None:
        self._on_demand_price = on_demand_price
        self.seconds = array("d")
        """From submission to end, by run that succeeded."""
        self.dollars = array("d")
        """By run, however it ended."""
        self.finished = array("d")
        """When each run that succeeded ended, in the world's time."""
        self.succeeded = 0
        self.failed = 0
        self.unfinished = 0
        self.refused = 0
        self.missed = 0
        """Actions that their deadline ended."""
        self.actions = 0
        self.attempts = 0
        self.preemptions = 0
        self.moves = 0
        self.spot_seconds = 0.0
        self.on_demand_seconds = 0.0
        self.lost_seconds = 0.0
        self.timeline: list[tuple[float, int, int, int]] = []
        """Time, attempts on spot, attempts on-demand, and actions that wait."""
        self._interval = 1.0

    # -- runs ---------------------------------------------------------------------------------------------------

    def run_ended(self, run: RunRecord) -> None:
        """A run is over."""
        self._count(run, 0.0)
        root = run.root_action
        if root.phase is SUCCEEDED:
            self.succeeded += 1
            self.seconds.append(root.ended_at - root.submitted_at)
            self.finished.append(root.ended_at)
        else:
            self.failed += 1

    def _count(self, run: RunRecord, now: float) -> None:
        dollars = 0.0
        for action in run.actions.values():
            self.actions += 1
            self.preemptions += action.preemptions
            if action.phase is _TIMED_OUT:
                self.missed += 1
            for attempt in action.attempts:
                if attempt.placed_at:
                    dollars += self._attempt(attempt, now)
        self.dollars.append(dollars)

    def _attempt(self, attempt: AttemptRecord, now: float) -> float:
        self.attempts += 1
        # One that has not ended met the horizon first: it is paid for, and its work is nowhere lost yet.
        seconds = (attempt.ended_at or now) - attempt.placed_at
        if attempt.medium == SPOT:
            self.spot_seconds += seconds
        else:
            self.on_demand_seconds += seconds
        if attempt.ended_at and attempt.end is not _SUCCEEDED:
            self.lost_seconds += attempt.ended_at - max(attempt.placed_at, attempt.last_checkpoint_at)
            if attempt.end is End.RELOCATED:
                self.moves += 1
        return seconds * attempt.price_per_hour / 3600.0

    @property
    def on_demand_dollars(self) -> float | None:
        """What the kept seconds would have cost on-demand; None where no on-demand price is known."""
        if self._on_demand_price is None:
            return None
        kept = self.spot_seconds + self.on_demand_seconds - self.lost_seconds
        return kept * self._on_demand_price / 3600.0

    # -- time ---------------------------------------------------------------------------------------------------

    def timeline_begins(self) -> None:
        """Another world begins: the timeline is the last one's."""
        self.timeline, self._interval = [], 1.0

    def world_ended(self, world: VirtualWorld) -> None:
        """It is over: what is unfinished then has cost money, too."""
        self.refused += world.refused
        self.unfinished += world.unfinished
        for run in world.state.runs.values():
            if run.root and not run.ended_at:
                self._count(run, world.now)
        self._note(world)

    def sample(self, world: VirtualWorld, until: float) -> None:
        """Things stay as they are until then; decide when to be asked again."""
        self._note(world)
        if len(self.timeline) > SAMPLES:
            self.timeline = self.timeline[::2]
            self._interval *= 2
        world.sample_at = max(until, world.now + self._interval)

    def _note(self, world: VirtualWorld) -> None:
        running, capacity = world.running, world.state.capacity
        waiting = sum(
            queue.waiting + queue.entering + queue.held + queue.returners for queue in capacity.queues.values()
        )
        self.timeline.append((world.now, running["spot"], running["on-demand"], waiting))


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value below which ``share`` (0..1) of the values lie, interpolated; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
