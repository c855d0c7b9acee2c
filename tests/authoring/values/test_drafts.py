"""A draft is what a value was when it was taken down: the same bytes, whatever becomes of the value afterwards."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import polars as pl
import pytest

from flyteish._authoring.tasks.signature import TaskSignature
from flyteish._authoring.values.codec import current_pickle_policy
from flyteish._authoring.values.current_blobs import at_hand
from flyteish._authoring.values.drafts import MANY, Draft
from flyteish.blobs import open_blobs
from flyteish.errors import SerializationError

LARGE = 200_000


@dataclasses.dataclass
class Holder:
    name: str
    content: Any
    more: Any = None


class Odd:
    """Travels by cloudpickle."""

    def __init__(self) -> None:
        self.content = bytes(LARGE)


def _take(value: Any, *rest: Any) -> Any:
    return value


SIGNATURE = TaskSignature.of(_take, "shop.take")


@pytest.fixture(autouse=True)
def store() -> Iterator[None]:
    with at_hand(open_blobs("memory:").blocking):
        yield


@pytest.fixture(autouse=True)
def quiet_pickles() -> Iterator[None]:
    policy = dataclasses.replace(current_pickle_policy.get(), notice=lambda _: None)
    token = current_pickle_policy.set(policy)
    yield
    current_pickle_policy.reset(token)


def _array() -> Any:
    return np.arange(LARGE, dtype="<i4")


def _edit_array(array: Any) -> None:
    array[:] = -1


def _frame() -> Any:
    return pd.DataFrame({"a": np.arange(LARGE), "b": ["x", "y"] * (LARGE // 2)})


def _edit_frame(frame: Any) -> None:
    frame.loc[:, "a"] = -1


def _edit_polars(frame: Any) -> None:
    frame[0, "a"] = -1
    frame.insert_column(0, pl.Series("z", np.zeros(LARGE)))


def _nothing(value: Any) -> None:
    """It cannot be changed."""


Make: TypeAlias = Callable[[], Any]
Edit: TypeAlias = Callable[[Any], object]
VALUES: dict[str, tuple[Make, Edit]] = {
    "array": (_array, _edit_array),
    "array in Fortran's order": (lambda: np.asfortranarray(_array().reshape(400, -1)), _edit_array),
    "part of an array": (lambda: _array().reshape(400, -1)[:, ::2], _edit_array),
    "transposed": (lambda: _array().reshape(400, -1)[:, ::2].T, _edit_array),
    "array of one number": (lambda: np.broadcast_to(np.int64(3), (LARGE,)).copy(), _edit_array),
    "pandas": (_frame, _edit_frame),
    "pandas with lists in its cells": (
        lambda: pd.DataFrame({"a": np.arange(LARGE), "o": pd.Series([[1, 2]] * LARGE, dtype=object)}), _edit_frame,
    ),
    "polars": (lambda: pl.DataFrame({"a": np.arange(LARGE)}), _edit_polars),
    "arrow": (lambda: pl.DataFrame({"a": list(range(LARGE))}).to_arrow(), _nothing),
    "bytearray": (lambda: bytearray(LARGE), lambda value: value.extend(b"more")),
    "bytes": (lambda: bytes(LARGE), _nothing),
    "text": (lambda: "ü" * LARGE, _nothing),
    "text that is no UTF-8": (lambda: "\ud800" * LARGE, _nothing),
    "list of numbers": (lambda: list(range(LARGE)), lambda value: value.reverse()),
    "list of big numbers": (lambda: [2**70] * LARGE, lambda value: value.clear()),
    "list of texts": (lambda: ["x" * 100] * 1000, lambda value: value.clear()),
    "list of a large text and a number": (lambda: ["x" * LARGE, 1], lambda value: value.clear()),
    "dict of numbers": (lambda: {str(i): i for i in range(LARGE)}, lambda value: value.clear()),
    "dict by tuples": (lambda: {(i, "k"): b"x" * LARGE for i in range(3)}, lambda value: value.clear()),
    "set of bytes": (lambda: {bytes([i]) * LARGE for i in range(5)}, lambda value: value.clear()),
    "tuple of texts": (lambda: ("x" * LARGE, 1), _nothing),
    "tuple of arrays": (lambda: (_array(), [1, 2], _array()), lambda value: _edit_array(value[2])),
    "dataclass": (lambda: Holder("n", {"deep": [_array(), [3]]}, [4]), lambda v: v.content["deep"][1].append(9)),
    "dataclass, its array": (lambda: Holder("n", [[_array()]]), lambda value: _edit_array(value.content[0][0])),
    "small list beside a large array": (lambda: [[1, 2], _array()], lambda value: value[0].append(3)),
    "pickled": (Odd, lambda value: setattr(value, "content", b"")),
    "structured array with objects": (
        lambda: np.array([(1, "x")] * LARGE, dtype=[("a", "<i8"), ("b", "O")]), lambda value: value["a"].fill(0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_what_travels_is_the_value_as_it_was(name: str) -> None:
    """Changed right after it was taken down, it packs to the bytes that it had, as an input and as a result."""
    make, edit = VALUES[name]
    value = make()
    wanted, wanted_result = SIGNATURE.encode_inputs((value, [value, 1]), {}), SIGNATURE.encode_result(value)
    draft, result = SIGNATURE.draft_inputs((value, [value, 1]), {}), SIGNATURE.draft_result(value)
    assert isinstance(draft, Draft)
    assert isinstance(result, Draft)
    edit(value)
    assert result.finish() == wanted_result
    assert draft.finish() == wanted


@pytest.mark.parametrize("value", [1, None, "x", b"x" * 100, [1, "a"], {"a": 1}, Holder("n", [1]), list(range(MANY))])
def test_small_values_are_encoded_at_once(value: Any) -> None:
    """There is nothing to put off."""
    assert SIGNATURE.draft_inputs((value,), {}) == SIGNATURE.encode_inputs((value,), {})
    assert SIGNATURE.draft_result(value) == SIGNATURE.encode_result(value)


@pytest.mark.parametrize("make", [_array, _frame, Odd])
def test_large_content_is_stored_by_who_finishes(make: Make) -> None:
    """Taking down touches no store."""

    class Watched:
        def put(self, data: Any) -> str:
            stored.append(threading.current_thread().name)
            return "sha256:" + "0" * 64

    stored: list[str] = []
    with at_hand(Watched()):  # type: ignore[arg-type]
        draft = SIGNATURE.draft_inputs((make(),), {})
        assert isinstance(draft, Draft)
        assert stored == []
        draft.finish()
    assert len(stored) == 1


def test_errors_name_the_parameter_when_they_come_late() -> None:
    """What is only found out while a frame is packed."""

    def take(fine: Any, frame: Any) -> None: ...

    signature = TaskSignature.of(take, "shop.take")
    policy = dataclasses.replace(current_pickle_policy.get(), allow_pickle=False)
    token = current_pickle_policy.set(policy)
    try:
        frame = pd.DataFrame({"a": np.zeros(LARGE, dtype=complex)})  # arrow has no such numbers
        draft = signature.draft_inputs((1, frame), {})
        assert isinstance(draft, Draft)
        with pytest.raises(SerializationError, match=r"shop\.take\(\): parameter 'frame' cannot be serialised"):
            draft.finish()
    finally:
        current_pickle_policy.reset(token)


def test_errors_that_can_be_found_at_once_are() -> None:
    """A generator beside a large array."""
    with pytest.raises(SerializationError, match="make a list of it"):
        SIGNATURE.draft_inputs((_array(), (i for i in "x")), {})


@pytest.mark.parametrize("name", ["array", "array in Fortran's order", "bytearray"])
def test_a_fan_out_over_one_object_shares_its_copy(name: str) -> None:
    """As long as it stays as it was; a changed one is copied anew, and each call gets what it was given."""
    value, drafts, wanted = VALUES[name][0](), [], []
    for turn in range(6):
        wanted.append(SIGNATURE.encode_inputs((value, [value]), {}))
        draft = SIGNATURE.draft_inputs((value, [value]), {})
        assert isinstance(draft, Draft)
        drafts.append(draft)
        if turn == 2:
            if isinstance(value, bytearray):
                value[-1] = 7
            else:
                value.reshape(-1, order="A")[-1] = -1
    assert [draft.size > 0 for draft in drafts] == [True, False, False, True, False, False]
    assert [draft.finish() for draft in drafts] == wanted
    again = SIGNATURE.draft_inputs((value,), {})
    assert isinstance(again, Draft)
    assert again.size > 0, "what is packed is not kept"
