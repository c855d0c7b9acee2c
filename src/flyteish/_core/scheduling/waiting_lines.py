"""The order in which a queue's waiting actions go: priority, then runs in turn, then first come first served.

A preempted attempt stands at the head of its priority class. Every operation costs at most the logarithm of
the waiting work: leaving is lazy (a ticket that is no longer valid is dropped when it comes to the head). Must
not know capacities: whether the head may start is ``admission``'s business.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterator

from flyteish._core.model.records import Action

Place = tuple[int, Action]
"""A ticket and its holder; valid while the holder's ticket is this one."""


def _valid(place: Place) -> bool:
    return place[1].ticket == place[0]


class _PriorityClass:
    """Those at the head, then one line per run, the runs in turn."""

    __slots__ = ("front", "runs", "turn")

    def __init__(self) -> None:
        self.front: deque[Place] = deque()
        self.runs: dict[str, deque[Place]] = {}
        self.turn: deque[str] = deque()

    def head(self) -> Action | None:
        while self.front:
            if _valid(self.front[0]):
                return self.front[0][1]
            self.front.popleft()
        while self.turn:
            line = self.runs[self.turn[0]]
            while line:
                if _valid(line[0]):
                    return line[0][1]
                line.popleft()
            del self.runs[self.turn.popleft()]
        return None

    def pop(self) -> None:
        """Take the head (``head`` has just been asked) out and give the next run its turn."""
        if self.front:
            self.front.popleft()
            return
        self.runs[self.turn[0]].popleft()
        if len(self.turn) > 1:
            self.turn.rotate(-1)

    def __iter__(self) -> Iterator[Action]:
        for place in self.front:
            if _valid(place):
                yield place[1]
        lines = [iter(self.runs[run]) for run in self.turn]
        while lines:
            going = []
            for line in lines:
                for place in line:
                    if _valid(place):
                        yield place[1]
                        going.append(line)
                        break
            lines = going


class WaitingLine:
    """One line of a queue: a priority class for each priority in use."""

    __slots__ = ("_classes", "_fair", "_priorities")

    def __init__(self, fair: bool) -> None:
        self._fair = fair
        self._priorities: list[int] = []  # ascending: the last is served first
        self._classes: dict[int, _PriorityClass] = {}

    def add(self, ticket: int, action: Action, at_head: bool) -> None:
        """Give ``action`` a place; it is valid while ``action.ticket`` is ``ticket``."""
        action.ticket = ticket
        priority = action.profile.settings.priority
        members = self._classes.get(priority)
        if members is None:
            members = self._classes[priority] = _PriorityClass()
            insort(self._priorities, priority)
        if at_head:
            members.front.append((ticket, action))
            return
        run = action.run if self._fair else ""
        line = members.runs.get(run)
        if line is None:
            line = members.runs[run] = deque()
            members.turn.append(run)
        line.append((ticket, action))

    def first(self) -> Action | None:
        """Who goes next, or None."""
        return next(iter(self), None)

    def head(self) -> Action | None:
        """The same; places before it that are not valid any more are dropped."""
        while self._priorities:
            priority = self._priorities[-1]
            action = self._classes[priority].head()
            if action is not None:
                return action
            del self._classes[priority]
            self._priorities.pop()
        return None

    def pop(self) -> None:
        """Take out the one that ``head`` just named."""
        self._classes[self._priorities[-1]].pop()

    def __iter__(self) -> Iterator[Action]:
        """Everybody in line, in the order in which they would go if nothing else came."""
        for priority in reversed(self._priorities):
            yield from self._classes[priority]
