"""What an engine and a worker say to each other: the wire protocol.

*How it works.* A worker is a process that runs attempts: one after the other for an engine on the same machine (a
socket that it inherited), or a single one anywhere else (a connection over a network, which it opens itself). Both
speak the same protocol over a stream of bytes. Each message is one msgpack array in a frame (``channel``); the array's
first item says which message it is. Both sides decode into the types below and into nothing else: no pickle is ever
read here, and what decodes is checked before it is used (``checks``), since it comes from a process that runs
somebody's code.

*The worker speaks first*, because whoever listens must learn who is there before it says anything: ``Hello`` names the
attempt (or the worker) and shows its token. The answer is ``Welcome``, with all that a worker needs to begin, or
``Rejected``, with a reason. Whoever has not been welcomed may send a single short frame and nothing else. An order
carries no secret: an attempt asks for its own (``Wanted``) when it is about to begin, so that they go to whoever has
shown a token, and lie in no queue.

*An attempt's course* is ``Taken`` (its code is about to be imported; should that kill the worker, it is known whose
fault it was), ``Began`` (user code runs), ``Ended``; either of the first two may be missing, but not both. Between
them it asks: ``Called`` is answered by ``Answer``, ``Checkpointed`` and ``Traced`` by ``Recorded``, ``Wanted`` by
``SecretValues``, each under the number that the worker gave it. Only the attempt that a worker is at may ask. Orders
may be sent ahead; those that have not begun can be taken back (``Recall``, answered by ``Recalled``).

*Connections are lost*, though neither end has failed. So messages are numbered in each direction, acknowledged in
passing, kept until they are, and sent again in order over the next connection; what comes twice is recognised by its
number. Both sides open with the number up to which they have heard the other: nothing is sent again that had arrived.
This goes for every message but the opening ones and bare acknowledgements, for each of the others changes something at
the other end, or is what one that does is checked against. There is nothing that may be lost to save effort: a message
that would be worthless later (how far something has got, say) should have no number. What is kept is bounded. A worker
that has sent that much unheard waits: its task goes on when somebody listens. An engine cannot wait, and gives up the
worker that does not listen.

*Acknowledged means done with*: an engine acknowledges an end or a notice when it is on record, everything else when it
has been passed on. For a controller may die between the two, and another one take its place: it has another ``epoch``
and knows nothing. To that one the worker sends anew, under new numbers, what was not acknowledged, and then every
request that has not been answered. That can only do what was done already: a child is found by its identity and runs
once, a checkpoint and a traced value are recognised.

*Over an inherited socket* none of this is needed, and none is done: such a connection is lost when one of the two
processes is, and a worker whose engine is gone ends at once. The frames are the same, and so is the code.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flyteish._core.model.events import CheckpointSkipped, WorkerEvidence
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.values import CheckpointRecord, Payload
from flyteish.interfaces import Call, Notice, Order, Outcome

PROTOCOL: Final = 1
"""Both ends must have the same; to be changed with every change of a message."""


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    pass


# -- the first of each side -------------------------------------------------------------------------------


class Hello(_Message, frozen=True):
    """The worker says who it is."""

    protocol: int
    version: str
    """Of flyteish."""
    token: str
    key: AttemptKey | None = None
    """The attempt that it is there for; None: whatever it is given."""
    epoch: str = ""
    """Of the engine that it last spoke to; empty: none yet."""
    received: int = 0
    """Number of the last message that it got from that one."""
    stage: str = ""
    """How far ``key`` has come: empty (the worker is starting), ``ready`` (it has no order), ``ordered``, ``taken`` or
    ``began``."""

    def __repr__(self) -> str:
        return f"Hello({self.key or 'any'}, protocol {self.protocol}, flyteish {self.version}, {self.stage or 'new'})"


class Welcome(_Message, frozen=True):
    """The engine knows the worker, and says what it needs."""

    epoch: str
    """Another one than the worker's: this engine knows of nothing that the worker has said."""
    received: int
    """Number of the last message that the engine got from the worker, if the epochs are the same."""
    sys_path: list[str] | None
    """How to import what the host can import; None: as the worker has it."""
    argv: list[str] | None
    blobs_url: str
    inline_limit: int
    """Bytes; larger values go to the blob store."""
    max_result: int
    """Bytes; larger results are refused."""
    scratch: str | None = None
    """Below it attempts have their private folders, in one named after the process; None: the system's place."""
    reconnect_seconds: float = 0.0
    """How long a lost connection is tried again."""


class Rejected(_Message, frozen=True):
    """The engine does not serve this worker."""

    why: str
    again: bool = False
    """Whether it may be otherwise later: the engine is not ready yet."""


# -- to the worker -----------------------------------------------------------------------------------------


class RunOrders(_Message, frozen=True):
    """Do these attempts, one after the other. ``logs`` has a path (or None) for each order."""

    orders: list[Order]
    logs: list[str | None]


class Notify(_Message, frozen=True):
    """The machine under the attempt goes away."""

    key: AttemptKey
    notice: Notice


class Stop(_Message, frozen=True):
    """End the attempt: cancel it, or raise in it."""

    key: AttemptKey
    reason: str


class Recall(_Message, frozen=True):
    """Give back those of these attempts that have not begun; answered by ``Recalled``."""

    keys: list[AttemptKey]


class Answer(_Message, frozen=True):
    """The child call of that number ended."""

    number: int
    outcome: Outcome


class Recorded(_Message, frozen=True):
    """The checkpoint or traced value of that number is on record, or was refused (``why``)."""

    number: int
    why: str | None = None


class SecretValues(_Message, frozen=True):
    """What was wanted under that number: environment variables with values that must never be shown."""

    number: int
    values: dict[str, str]
    missing: str | None = None
    """Which one nobody has, in words; the attempt has to end."""

    def __repr__(self) -> str:
        return f"SecretValues({self.number}, {self.missing or sorted(self.values)})"


class Exit(_Message, frozen=True):
    """Finish: there is no more work."""


ToWorker = RunOrders | Notify | Stop | Recall | Answer | Recorded | SecretValues | Exit


# -- from the worker ---------------------------------------------------------------------------------------


class Ready(_Message, frozen=True):
    """Start-up is over."""


class Taken(_Message, frozen=True):
    """The worker turns to this attempt; its code is still to be imported."""

    key: AttemptKey


class Began(_Message, frozen=True):
    """User code begins."""

    key: AttemptKey


class Ended(_Message, frozen=True):
    """The attempt is over. ``seconds`` is how long it kept the worker."""

    key: AttemptKey
    evidence: WorkerEvidence
    seconds: float


class Recalled(_Message, frozen=True):
    """These had not begun and are no longer the worker's."""

    keys: list[AttemptKey]


class Called(_Message, frozen=True):
    """User code calls a task; ``number`` is the worker's own."""

    key: AttemptKey
    number: int
    call: Call


class CallWithdrawn(_Message, frozen=True):
    """User code no longer waits for its call."""

    key: AttemptKey
    number: int
    reason: str


class Checkpointed(_Message, frozen=True):
    """A checkpoint lies in the blob store and wants to join the chain."""

    key: AttemptKey
    number: int
    record: CheckpointRecord


class Skipped(_Message, frozen=True):
    """Restore passed over a torn or corrupt checkpoint."""

    key: AttemptKey
    event: CheckpointSkipped


class Traced(_Message, frozen=True):
    """A traced helper's value, for later attempts."""

    key: AttemptKey
    number: int
    name: str
    result: Payload


class Wanted(_Message, frozen=True):
    """The attempt is about to begin, and needs the values of its secrets."""

    key: AttemptKey
    number: int


class Signalled(_Message, frozen=True):
    """The worker received SIGTERM, which it takes for a notice, while this attempt ran."""

    key: AttemptKey
    notice: Notice


FromWorker = (
    Ready
    | Taken
    | Began
    | Ended
    | Recalled
    | Called
    | CallWithdrawn
    | Checkpointed
    | Skipped
    | Traced
    | Wanted
    | Signalled
)

encode: Final = msgspec.msgpack.Encoder().encode
