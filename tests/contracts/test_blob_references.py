"""What every blob store promises of references."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest

from flyteish.errors import ConfigurationError
from flyteish.interfaces import BlockingBlobs

BAD_NAMES = ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a~", "a b", "-x", "x\n", "a" * 201]


def said(blobs: BlockingBlobs, name: str) -> bytes | None:
    found = blobs.get_ref(name)
    return None if found is None else found.data


def test_references_hold_the_last_value(blobs: BlockingBlobs) -> None:
    """A reference has the value set last; one that was never set is None, and an empty value is a value."""
    assert blobs.get_ref("a/b") is None
    blobs.set_ref("a/b", b"1")
    blobs.set_ref("a/b", b"2")
    blobs.set_ref("a", b"")
    assert (said(blobs, "a/b"), said(blobs, "a")) == (b"2", b"")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_reference_names_are_refused(blobs: BlockingBlobs, name: str) -> None:
    """A name that could leave the store or hide in it is refused, both ways."""
    with pytest.raises(ConfigurationError, match="is not accepted for a reference"):
        blobs.set_ref(name, b"")
    with pytest.raises(ConfigurationError, match="is not accepted for a reference"):
        blobs.get_ref(name)


def test_a_reference_is_created_once(blobs: BlockingBlobs) -> None:
    """The second who tries is told, and changes nothing; once it is deleted it can be created again."""
    assert blobs.create_ref("claims/r1/a0", b"mine")
    assert not blobs.create_ref("claims/r1/a0", b"yours")
    assert said(blobs, "claims/r1/a0") == b"mine"
    assert blobs.delete_ref("claims/r1/a0")
    assert blobs.create_ref("claims/r1/a0", b"yours")


def test_of_many_who_create_one_succeeds(blobs: BlockingBlobs) -> None:
    """However they race; what is there is the winner's."""
    for turn in range(10):
        won: list[int] = []

        def claim(number: int, turn: int = turn, won: list[int] = won) -> None:
            if blobs.create_ref(f"claims/{turn}", b"%d" % number):
                won.append(number)

        at_once(claim, 8)
        assert [said(blobs, f"claims/{turn}")] == [b"%d" % number for number in won]


def test_a_reference_is_replaced_if_unchanged(blobs: BlockingBlobs) -> None:
    """Not where there is none, nor where somebody has set another value since."""
    assert not blobs.replace_ref("head", b"1", "whatever")
    blobs.set_ref("head", b"1")
    first = blobs.get_ref("head")
    assert first is not None
    assert blobs.replace_ref("head", b"2", first.version)
    assert not blobs.replace_ref("head", b"3", first.version)
    assert said(blobs, "head") == b"2"
    second = blobs.get_ref("head")
    assert second is not None
    blobs.delete_ref("head")
    assert not blobs.replace_ref("head", b"3", second.version)
    assert blobs.get_ref("head") is None


def test_no_replacement_is_lost(blobs: BlockingBlobs) -> None:
    """Threads that count together by replacing what is unchanged arrive at the sum."""
    blobs.set_ref("count", b"0")

    def count(_: int) -> None:
        for _ in range(5):
            while True:
                found = blobs.get_ref("count")
                assert found is not None
                if blobs.replace_ref("count", b"%d" % (int(found.data) + 1), found.version):
                    break

    at_once(count, 4)
    assert said(blobs, "count") == b"20"


def test_a_reference_goes_unless_it_was_written_since(blobs: BlockingBlobs) -> None:
    """Its time is when it was last written, with whatever value; reading it changes nothing."""
    assert not blobs.delete_ref("name")
    blobs.set_ref("name", b"value")
    first = blobs.get_ref("name")
    assert first is not None
    assert not blobs.delete_ref("name", first.written_at)
    since = after(first.written_at)
    assert blobs.replace_ref("name", b"value", first.version)
    assert not blobs.delete_ref("name", since)
    found = blobs.get_ref("name")
    assert found is not None
    assert found.written_at >= since
    assert blobs.delete_ref("name", math.inf)
    assert blobs.get_ref("name") is None


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_everywhere(blobs: BlockingBlobs, name: str) -> None:
    """By every method that takes one."""
    for use in (
        lambda: blobs.create_ref(name, b""),
        lambda: blobs.replace_ref(name, b"", ""),
        lambda: blobs.delete_ref(name),
        lambda: blobs.space(name),
    ):
        with pytest.raises(ConfigurationError, match="is not accepted for a reference"):
            use()


def at_once(work: Callable[[int], None], count: int) -> None:
    """Call it on so many threads that begin together."""
    failures: list[BaseException] = []
    gate = threading.Barrier(count)

    def begin(number: int) -> None:
        try:
            gate.wait(30)
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def after(moment: float) -> float:
    """The present, which is later than that."""
    while (now := time.time()) <= moment:
        pass
    return now
