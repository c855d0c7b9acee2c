"""Forecasts as values: percentiles, ranks, calibration, and what the store keeps of them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
import pytest

from flyteish import Calibration, Comparison, Forecast
from flyteish._core.model.policies import RetryStrategy
from flyteish._core.model.queues import Pool
from flyteish._core.model.settings import Settings
from flyteish._core.rules.experience import COUNTED, Experience, TaskSeen
from flyteish._learning.documents import (
    FORECASTS_KEPT,
    FORECASTS_OF_ONE,
    LEARNED,
    Learned,
    add_forecast,
    keep,
    merged,
    read,
    read_forecasts,
)
from flyteish._learning.forecasts import Percentiles, settings_digest
from flyteish._learning.machine_lifetimes import Lifetimes, PoolSeen
from flyteish.stores.memory import MemoryStore


def forecast(task: str = "e.t", made_at: float = 0.0, digest: str = "d", finish: Percentiles | None = None) -> Forecast:
    return Forecast(
        task=task, queue="default", digest=digest, made_at=made_at, rounds=1, finish=finish or Percentiles.of([10.0]),
        dollars=None, on_demand_seconds=None, on_demand_dollars=None, preemptions=0.0, lost_seconds=0.0, spot_share=0.0,
        deadline=None, misses=0.0, fails=0.0, based_on=(), assumed=(),
    )  # fmt: skip


def comparison(seconds: float, p50: float = 100.0, **other: object) -> Comparison:
    finish = Percentiles.of([p50 * 0.9, p50, p50 * 1.1])
    assert finish is not None
    facts: dict = {
        "run": "r", "task": "e.t", "digest": "d", "made_at": 0.0, "submitted_at": 1.0, "phase": "succeeded",
        "missed": False, "interrupted": False, "seconds": seconds, "finish": finish, "rank": finish.rank(seconds),
        "cost": 0.0, "dollars": None, "cost_rank": None, "preemptions": 0, "preemptions_expected": 0.0, "misses": 0.0,
    }  # fmt: skip
    return Comparison(**{**facts, **other})


def test_percentiles_are_interpolated() -> None:
    """Of 0 to 100 each percentile is its own number, and the ends are the least and the most."""
    found = Percentiles.of(float(n) for n in range(101))
    assert found is not None
    assert (found.p5, found.p50, found.p90, found.p95, found.mean) == (5.0, 50.0, 90.0, 95.0, 50.0)
    assert (found.at(0), found.at(0.525), found.at(1)) == (0.0, 52.5, 100.0)
    assert Percentiles.of([]) is None
    with pytest.raises(ValueError, match=r"share=1\.5 is not accepted"):
        found.at(1.5)


def test_a_rank_is_the_share_below() -> None:
    """Between two percentiles it is interpolated, beyond the ends 0 and 1, among equals their middle."""
    found = Percentiles.of(float(n) for n in range(101))
    assert found is not None
    assert [found.rank(x) for x in (-1.0, 0.0, 52.5, 90.0, 100.0, 101.0)] == pytest.approx([0, 0, 0.525, 0.9, 1, 1])
    same = Percentiles.of([7.0] * 9)
    assert same is not None
    assert [same.rank(x) for x in (6.9, 7.0, 7.1)] == [0.0, 0.5, 1.0]


def test_wall_clock_times_follow_from_when_it_starts() -> None:
    """By default when the forecast was made; a forecast in which nothing finished has none."""
    made = forecast(made_at=1000.0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert made.finish_at(0.5, start).isoformat() == "2026-01-01T00:00:10+00:00"
    assert made.finish_at().timestamp() == 1010.0
    with pytest.raises(ValueError, match=r"no round of the forecast of e\.t finished"):
        msgspec.structs.replace(made, finish=None).finish_at()


def test_calibration_counts_runs_that_say_something() -> None:
    """Runs that failed, or whose controller died, do not count to the hits; missed deadlines always do."""
    every = [
        comparison(100.0), comparison(104.0), comparison(300.0), comparison(99.0),
        comparison(5000.0, interrupted=True), comparison(50.0, rank=None, phase="timed_out", missed=True, misses=0.25),
    ]  # fmt: skip
    found = Calibration.of(every)
    assert (found.runs, found.within, found.misses, found.misses_expected) == (4, 3, 1, 0.25)
    assert found.median_error == pytest.approx(0.02)
    assert str(found) == ("of 4 runs 3 (75%) ended within p5..p95; median error +2%; 1 deadlines missed, 0.2 expected")
    assert str(Calibration.of([])) == "no run has been compared with a forecast yet"


def test_the_digest_is_of_what_matters_to_time_and_money() -> None:
    """Environment variables, links and where a setting came from change nothing; retries do."""
    plain = settings_digest(Settings())
    assert settings_digest(Settings(env_vars={"A": "1"}, links=("x",), sources={"queue": "here"})) == plain
    assert settings_digest(Settings(retries=RetryStrategy(count=1))) != plain


def test_memory_is_bounded() -> None:
    """A few forecasts of each task and settings, the newest; a few hundred altogether; each once."""
    many = [forecast(made_at=float(n)) for n in range(20)]
    assert [each.made_at for each in merged(many, many)] == [float(n) for n in range(20 - FORECASTS_OF_ONE, 20)]
    different = [forecast(task=f"e.{n}", made_at=float(n)) for n in range(FORECASTS_KEPT + 5)]
    assert merged([], different)[0].made_at == 5.0


def test_documents_come_back_as_they_were() -> None:
    """Forecasts beside those of others, and all that was learned."""
    store = MemoryStore()
    add_forecast(store, forecast(made_at=1.0))
    add_forecast(store, forecast(made_at=2.0))
    assert [each.made_at for each in read_forecasts(store)] == [1.0, 2.0]
    learned = Learned({"e.t": TaskSeen([1.0], {"spot": [2.0]}, gaps=[3.0], successes=1)}, {"spot": PoolSeen(60.0, 1)})
    keep(store, LEARNED, learned)
    assert read(store, LEARNED, Learned) == learned


@pytest.mark.parametrize("data", [b"", b"\xc1garbage", b"\x82\xa7version\x01\xa4body\x05"])
def test_a_corrupt_document_is_passed_over(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """With a warning; nothing fails for want of experience."""
    store = MemoryStore()
    store.put_note(LEARNED, data)
    assert read(store, LEARNED, Learned) is None
    assert "'learned' cannot be read" in caplog.text


def test_a_document_of_a_newer_version_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """It may mean something else."""
    caplog.set_level(logging.WARNING)
    store = MemoryStore()
    store.put_note(LEARNED, msgspec.msgpack.encode({"version": 99, "body": {}}))
    assert read(store, LEARNED, Learned) is None
    assert "newer flyteish (version 99)" in caplog.text


def test_lifetimes_are_recalled_and_the_distant_past_fades() -> None:
    """Pools that there are no more are passed over; after a hundred reclaims the past is halved."""
    before, after = Lifetimes([Pool("spot", "spot")]), Lifetimes([Pool("spot", "spot")])
    before.saw("spot", 100.0, reclaimed=True)
    after.recall({**before.seen(), "gone": PoolSeen(1.0, 1)})
    assert after.seen() == {"spot": PoolSeen(100.0, 1)}
    for _ in range(100):
        after.saw("spot", 100.0, reclaimed=True)
    assert after.seen() == {"spot": PoolSeen(5050.0, 50)}


def test_failures_fade_too() -> None:
    """The share is that of the last few hundred ends."""
    experience = Experience()
    for _ in range(COUNTED):
        experience.finished("e.t", 1.0)
    assert experience.of("e.t").failure_share == 0.0
    experience.failed("e.t")
    seen = experience.of("e.t")
    assert (seen.successes, seen.failures) == (COUNTED // 2, 0)
    experience.failed("e.t")
    assert seen.failure_share == pytest.approx(1 / 101)
