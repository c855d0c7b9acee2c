"""Every blob store does what a few dicts do, whatever is done in whatever order."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyteish.blobs.addresses import content_address
from flyteish.blobs.on_loop import LoopBlobs
from flyteish.blobs.sweeping import Swept, sweep
from flyteish.interfaces import BlockingBlobs
from tests.contracts.conftest import STORES
from tests.contracts.test_blob_references import after, said

CONTENTS = [b"", b"bb"]
NAMES = ["r", "r/s"]

contents = st.integers(0, len(CONTENTS) - 1)
names = st.sampled_from(NAMES)
ages = st.integers(0, 5)  # steps ago
STEPS = st.one_of(
    st.tuples(st.just("put"), contents),
    st.tuples(st.just("delete"), contents, ages),
    st.tuples(st.just("sweep"), st.sets(contents), ages),
    st.tuples(st.just("set_ref"), names, contents),
    st.tuples(st.just("create_ref"), names, contents),
    st.tuples(st.just("replace_ref"), names, contents, contents),
    st.tuples(st.just("delete_ref"), names, ages),
)


class Written(NamedTuple):
    data: bytes
    step: int


class Model:
    """What is there, and in which step it was last written."""

    def __init__(self) -> None:
        self.contents: dict[str, Written] = {}
        self.refs: dict[str, Written] = {}
        self.step = 0

    def put(self, number: int) -> str:
        address = content_address(CONTENTS[number])
        self.contents[address] = Written(CONTENTS[number], self.step)
        return address

    def delete(self, number: int, since: int) -> int:
        return self._delete({content_address(CONTENTS[number])}, since).size

    def sweep(self, kept: set[int], since: int) -> Swept:
        mentioned = {ref.data.decode() for ref in self.refs.values()}
        kept_addresses = {content_address(CONTENTS[number]) for number in kept}
        return self._delete(self.contents.keys() - kept_addresses - mentioned, since)

    def _delete(self, addresses: set[str], since: int) -> Swept:
        old = [each for each in addresses if each in self.contents and self.contents[each].step < since]
        return Swept(len(old), sum(len(self.contents.pop(each).data) for each in old))

    def set_ref(self, name: str, number: int) -> None:
        self.refs[name] = Written(content_address(CONTENTS[number]).encode(), self.step)

    def create_ref(self, name: str, number: int) -> bool:
        if name in self.refs:
            return False
        self.set_ref(name, number)
        return True

    def replace_ref(self, name: str, number: int, expected: int) -> bool:
        if name not in self.refs or self.refs[name].data != content_address(CONTENTS[expected]).encode():
            return False
        self.set_ref(name, number)
        return True

    def delete_ref(self, name: str, since: int) -> bool:
        if name not in self.refs or self.refs[name].step >= since:
            return False
        del self.refs[name]
        return True


def done(blobs: BlockingBlobs, step: tuple[Any, ...], since: float, versions: dict[bytes, str]) -> Any:
    """The same with a store."""
    match step:
        case "put", number:
            return blobs.put(CONTENTS[number])
        case "delete", number, _:
            return blobs.delete([content_address(CONTENTS[number])], since)
        case "sweep", kept, _:
            addresses = {content_address(CONTENTS[number]) for number in kept}
            return sweep(blobs, addresses.__contains__, since)
        case "set_ref" | "create_ref" as method, name, number:
            return getattr(blobs, method)(name, content_address(CONTENTS[number]).encode())
        case "replace_ref", name, number, expected:
            version = versions.get(content_address(CONTENTS[expected]).encode(), "never seen")
            return blobs.replace_ref(name, content_address(CONTENTS[number]).encode(), version)
        case _:
            return blobs.delete_ref(step[1], since)


@pytest.mark.parametrize("store", STORES)
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=5, max_size=25))
def test_a_store_does_what_its_model_does(
    store: str,
    loop: asyncio.AbstractEventLoop,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[Any, ...]],
) -> None:
    """What each step answers, and what is there in the end."""
    folder: Path = tmp_path_factory.mktemp("model")
    blobs, model = LoopBlobs(STORES[store](folder, loop), loop), Model()
    began: list[float] = []
    versions: dict[bytes, str] = {}
    for step in steps:
        began.append(after(time.time()))
        model.step = len(began)
        arguments = list(step[1:])
        since = 0
        if step[0] in ("delete", "sweep", "delete_ref"):
            since = arguments[-1] = max(1, model.step - step[-1])
        expected = getattr(model, step[0])(*arguments)
        assert done(blobs, step, began[since - 1] if since else 0.0, versions) == expected
        for name in NAMES:
            found = blobs.get_ref(name)
            if found is not None:
                versions[found.data] = found.version
    assert {each.name: bytes(blobs.get(each.name)) for each in blobs.contents()} == {
        address: written.data for address, written in model.contents.items()
    }
    assert {name: said(blobs, name) for name in NAMES} == {
        name: model.refs[name].data if name in model.refs else None for name in NAMES
    }
