"""The call that a run begins with, as data: taken down when the run is started, packed then or beside the event loop.

Must not know which session it is for, nor what becomes of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flyteish._authoring.tasks.calling import Callee, cache_digest_of
from flyteish._authoring.values.drafts import Draft
from flyteish._authoring.values.errors import type_name
from flyteish._authoring.values.payloads import ON_LOOP, check_size, pack
from flyteish._core.model.ids import ROOT_ACTION, inputs_digest
from flyteish._core.model.settings import Scope
from flyteish.interfaces import BlockingContent, Call, Limits, OnOutcome, Outcome


class RootCall(NamedTuple):
    """What was called, as it was then."""

    task: Callee
    scope: Scope
    inputs: bytes | Draft
    function: bytes | None
    """Pickled, where no other process can import it."""
    blobs: BlockingContent
    limits: Limits

    @classmethod
    def taken_down(
        cls,
        task: Callee,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        scope: Scope,
        blobs: BlockingContent,
        limits: Limits,
    ) -> RootCall:
        """Raises InputTypeError and SerializationError."""
        encode = task.signature.draft_inputs if _on_loop() else task.signature.encode_inputs
        return cls(task, scope, encode(args, kwargs), task.pickled(scope), blobs, limits)

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        inputs = self.inputs.size if isinstance(self.inputs, Draft) else len(self.inputs)
        return inputs + len(self.function or b"")

    def may_be_packed_here(self) -> bool:
        """Whether packing it hashes and stores nothing large, or this thread has no event loop that it would stop."""
        return not _on_loop() or (not isinstance(self.inputs, Draft) and self.size <= ON_LOOP)

    def packed(self) -> Call:
        """Raises SerializationError where the inputs are too large, and errors of the store."""
        data = self.inputs.finish() if isinstance(self.inputs, Draft) else self.inputs
        check_size(self.task.name, "arguments", data, self.limits)
        profile = self.task.profile(self.scope, self.blobs, self.function)
        digest = cache_digest_of(self.task, profile, data)
        return Call(profile, pack(data, self.limits.inline, self.blobs), inputs_digest(data), cache_digest=digest)

    def pack_for(self, run: str, submit: Callable[[Call], object], done: OnOutcome) -> None:
        """Pack and submit it, on a thread; what goes wrong refuses the run."""
        try:
            submit(self.packed())
        except Exception as error:
            done(Outcome.refused(run, ROOT_ACTION, type_name(type(error)), str(error)), None)


def _on_loop() -> bool:
    return asyncio._get_running_loop() is not None
