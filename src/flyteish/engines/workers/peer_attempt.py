"""An attempt that a worker has, as far as what the worker says of it goes. Must not know what any of it means."""

from __future__ import annotations

from flyteish._core.model.events import Evidence, WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import Profile
from flyteish._core.rules.attempt_ends import from_worker
from flyteish.interfaces import Link, Order


class PeerAttempt:
    """An attempt that a worker has, begun or not; engines keep more of it."""

    __slots__ = (
        "asked", "calls", "doomed", "key", "link", "notice", "order", "profiles", "unmendable", "user_code",
    )  # fmt: skip

    def __init__(self, order: Order, link: Link) -> None:
        self.order = order
        self.key: AttemptKey = order.key
        self.link = link
        self.user_code = False
        """Whether its worker has said that user code runs."""
        self.asked = 0
        """The highest number of a request of its."""
        self.calls: dict[int, int] = {}
        """Child calls without an answer: the worker's number -> the link's."""
        self.unmendable: str | None = None
        """Why it can't even begin."""
        self.profiles: dict[str, Profile] | None = None
        """Those of its calls that were checked."""
        self.doomed: Evidence | None = None
        """How it ends if nothing better is known of it; from when it is known that it has to end."""
        self.notice = ""
        """Kind of the notice that it last got; empty: none."""

    def evidence(self, said: WorkerEvidence) -> Evidence:
        """What the worker's word on its end comes to."""
        if self.unmendable is not None:
            return Evidence(unmendable=self.unmendable)
        return from_worker(said, self.notice, told=self.doomed is not None)

    def __repr__(self) -> str:
        return f"PeerAttempt({self.key} {self.order.task})"
