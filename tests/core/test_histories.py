"""Ways in which things can go, drawn at random; every promise of the specification is checked after every event.

The world of each history is drawn too: queues and their limits, pools, policies. Hypothesis draws short histories,
and shrinks one that fails to the fewest events that show it; the long ones come from the seed in the report's head.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from flyteish._core.model.events import (
    AttemptEnded,
    AttemptNoticed,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    Configured,
    Evidence,
    PoolCapacityChanged,
    PoolPriceChanged,
    QueueStateSet,
    ValueTraced,
)
from flyteish._core.model.ids import AttemptKey
from flyteish._core.model.policies import Backoff, RetryStrategy, SpotPolicy, Timeout
from flyteish._core.model.queues import Medium, Pool, Queue
from flyteish._core.model.resources import Resources
from flyteish._core.model.settings import Settings
from flyteish._core.model.values import CheckpointRecord, ErrorDocument, Payload, Profile
from tests.core.world import World, profile

LONG_HISTORIES = 500
POOLS: tuple[tuple[str, Medium, float], ...] = (
    ("od", "on-demand", 1.0),
    ("spot", "spot", 0.85),
    ("spot2", "spot", 0.5),
)
QUEUES = ("default", "other", "third")
small = st.integers(0, 3)

spot_policies = st.builds(
    SpotPolicy,
    fallback=st.sampled_from(["final", "final", "final", "first-preemption", "never"]),
    preemptions_without_progress=st.integers(1, 2),
    max_spot_wait=st.sampled_from([None, 0, 3]),
    budget=st.sampled_from(["uncharged", "single"]),
)
all_settings = st.builds(
    Settings,
    queue=st.sampled_from(QUEUES[:2]),
    interruptible=st.none() | spot_policies,
    retries=st.builds(
        RetryStrategy,
        count=st.integers(0, 2),
        backoff=st.sampled_from([None, Backoff(2.0, 2.0, jitter=0.5)]),
        system_retries=st.integers(0, 2),
    ),
    timeout=st.builds(
        Timeout,
        max_runtime=st.sampled_from([None, None, 5]),
        max_queued_time=st.sampled_from([None, None, 4]),
        deadline=st.sampled_from([None, None, 0.5, 12, 40]),
    ),
    priority=st.sampled_from([50, 50, 100]),
    resources=st.sampled_from([Resources(), Resources(cpu=1), Resources(cpu=2)]),
)


def queues(name: str, pools: tuple[str, ...]) -> st.SearchStrategy[Queue]:
    return st.builds(
        Queue,
        st.just(name),
        pools=st.sampled_from([(), pools[:1], pools]),
        action_concurrency=small,
        run_concurrency=st.sampled_from([0, 0, 1, 2]),
        depth=st.sampled_from([0, 0, 1, 3]),
        on_full=st.sampled_from(["refuse", "wait"]),
        max_resources=st.sampled_from([Resources(), Resources(), Resources(cpu=2)]),
        priority=st.sampled_from([50, 50, 100]),
        scheduling=st.sampled_from(["strict_fifo", "greedy_capacity"]),
        fairness=st.sampled_from(["round_robin", "fifo"]),
        overlap=st.sampled_from(["allow", "allow", "queue", "skip", "replace"]),
        spot_share=st.sampled_from([1.0, 1.0, 0.5, 0.0]),
        spend_limit=st.sampled_from([0.0, 0.0, 1.5]),
        state=st.sampled_from(["active", "active", "active", "held"]),
    )


def pool(name: str, medium: str) -> st.SearchStrategy[Pool]:
    return st.builds(
        Pool,
        st.just(name),
        medium=st.just(medium),
        capacity=small,
        resources=st.sampled_from([Resources(), Resources(), Resources(cpu=2)]),
        price_per_hour=st.sampled_from([0.0, 0.3, 1.0]),
        cooldown=st.sampled_from([0.0, 3.0]),
    )


@st.composite
def configurations(draw: st.DrawFn) -> Configured:
    pools = [draw(pool("od", "on-demand")), draw(pool("spot", "spot"))]
    if draw(st.booleans()):
        pools.append(draw(pool("spot2", "spot")))
    names = tuple(p.name for p in pools)
    count = 2 if draw(st.integers(0, 5)) else 1
    return Configured(tuple(draw(queues(name, names)) for name in QUEUES[:count]), tuple(pools))


KINDS = (
    ["run"] * 3 + ["call"] * 6 + ["end"] * 6 + ["succeed"] * 3 + ["advance"] * 3
    + ["running", "checkpoint", "cancel", "capacity", "queue", "configure", "restart", "zombie", "notice"]
    + ["trace", "forget", "late", "compare", "price"]
)  # fmt: skip
# Three bytes a step: drawn fast, and cut to what matters when a history fails.
histories = st.binary(max_size=300) | st.binary(min_size=90, max_size=360)


def read(history: bytes) -> list[tuple[str, int, int]]:
    padded = history + bytes(-len(history) % 3)
    return [(KINDS[padded[n] % len(KINDS)], padded[n + 1], padded[n + 2]) for n in range(0, len(padded), 3)]


ENDS: tuple[Evidence, ...] = (
    Evidence(result=Payload(b"done")),
    Evidence(error=ErrorDocument("builtins.ValueError", "no", ("builtins.ValueError",))),
    Evidence(reclaimed="node drained"),
    Evidence(vanished="no heartbeat"),
    Evidence(denied="insufficient capacity"),
    Evidence(exit_code=0),
    Evidence(reclaimed="spot reclaimed"),
    Evidence(error=ErrorDocument("m.Final", "no", ("m.Final",), final=True)),
    Evidence(out_of_memory=True),
    Evidence(unmendable="image name invalid"),
    Evidence(stopped=True),
)


class Player:
    """Reads the drawn steps as things that happen to whoever is there."""

    def __init__(self, first: Configured, second: Configured, profiles: list[Profile]) -> None:
        self.world = World(first.queues, first.pools)
        self.configs = (first, second)
        self.profiles = profiles

    def play(self, kind: str, a: int, b: int) -> None:
        step: Callable[[int, int], None] = getattr(self, f"do_{kind}")
        step(a, b)

    def _live(self, a: int) -> AttemptKey | None:
        keys = list(self.world.live)
        return keys[a % len(keys)] if keys else None

    def do_run(self, a: int, b: int) -> None:
        self.world.submit(self.profiles[a % len(self.profiles)], Payload(b"cached") if b == 255 else None)

    def do_call(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None and key.run in self.world.state.runs:
            child = self.profiles[b % len(self.profiles)]
            self.world.call(key, child, bytes([b % 2]), Payload(b"cached") if b == 255 else None)

    def do_end(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None:
            evidence = ENDS[b % len(ENDS)]
            live = self.world.live[key]
            if evidence.denied is not None and (live.awaits or live.calls):
                evidence = ENDS[2]
            self.world.end(key, evidence, chance=b / 256)

    def do_succeed(self, a: int, b: int) -> None:
        ready = [key for key, live in self.world.live.items() if not live.awaits]
        if ready:
            self.world.end(ready[a % len(ready)], Evidence(result=Payload(bytes([b]))))

    def do_running(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None:
            self.world.begin(key)

    def do_notice(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None:
            self.world.tell(AttemptNoticed(*key, "terminate", 30.0, "market"))

    def do_checkpoint(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None:
            record = CheckpointRecord(b, key.generation, "blob", "bytes", 1, self.world.now)
            refused = len(self.world.refusals)
            current = self.world.is_current(key)
            self.world.tell(CheckpointCommitted(*key, record))
            assert (len(self.world.refusals) == refused) == current, "a zombie committed a checkpoint"
            self.world.tell(CheckpointSkipped(*key, b, "torn"))

    def do_trace(self, a: int, b: int) -> None:
        key = self._live(a)
        if key is not None:
            self.world.tell(ValueTraced(*key, f"k{b % 3}", Payload(bytes([b]))))

    def do_cancel(self, a: int, b: int) -> None:
        actions = [action for run in self.world.state.runs.values() for action in run.actions.values()]
        if actions:
            action = actions[a % len(actions)]
            self.world.tell(CancelRequested(action.run, action.id, f"because {b}"))

    def do_price(self, a: int, b: int) -> None:
        self.world.tell(PoolPriceChanged(["od", "spot", "spot2", "gone"][a % 4], [0.0, 0.3, 1.0, 2.0][b % 4]))

    def do_capacity(self, a: int, b: int) -> None:
        names = ["od", "spot", "spot2", "gone"]
        self.world.tell(PoolCapacityChanged(names[a % 4], (0, 1, None)[b % 3]))

    def do_queue(self, a: int, b: int) -> None:
        state = ("held", "active", "draining", "active")[b % 4]
        self.world.tell(QueueStateSet(QUEUES[a % 3], state))

    def do_configure(self, a: int, b: int) -> None:
        self.world.configure(self.configs[a % 2])

    def do_restart(self, a: int, b: int) -> None:
        self.world.now += b % 9
        self.world.restart()

    def do_advance(self, a: int, b: int) -> None:
        self.world.advance((a % 12) / 2)

    def do_late(self, a: int, b: int) -> None:
        """An end that comes exactly when something is due."""
        due = self.world.state.next_due()
        if due is not None and due >= self.world.now:
            self.world.now = due
            self.do_end(a, b)
            self.world.advance(0)

    def do_zombie(self, a: int, b: int) -> None:
        """Somebody who was given up, or was never there, speaks again."""
        gone = [key for key in self.world.seen if key not in self.world.live]
        if gone:
            key = gone[a % len(gone)]
            self.world.tell(AttemptEnded(*key, ENDS[b % len(ENDS)]))
            self.world.begin(key)

    def do_forget(self, a: int, b: int) -> None:
        for run in list(self.world.state.runs):
            self.world.state.forget(run)

    def do_compare(self, a: int, b: int) -> None:
        self.world.check_replay()


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(configurations(), configurations(), st.lists(all_settings, min_size=1, max_size=4), histories)
def test_every_promise_holds_whatever_happens(
    first: Configured, second: Configured, drawn: list[Settings], history: bytes
) -> None:
    """After every event the counts are exact and no limit is exceeded; at the end everything has ended, and the
    journal tells the same story."""
    profiles = [profile(each, f"e.t{number}") for number, each in enumerate(drawn)]
    player = Player(first, second, profiles)
    note(f"history: {read(history)}")
    for kind, a, b in read(history):
        player.play(kind, a, b)
    player.world.check_replay()
    player.world.settle()
    player.world.check_replay()


def test_every_promise_holds_in_long_histories(seed: int) -> None:
    """The same over many more events: crowded queues, deep families, several restarts."""
    for number in range(LONG_HISTORIES):
        chance = random.Random(seed + number)
        profiles = [profile(random_settings(chance), f"e.t{n}") for n in range(chance.randint(1, 4))]
        player = Player(random_configuration(chance), random_configuration(chance), profiles)
        try:
            for kind, a, b in read(chance.randbytes(3 * chance.choice([20, 60, 150]))):
                player.play(kind, a, b)
            player.world.check_replay()
            player.world.settle()
            player.world.check_replay()
        except BaseException as error:
            error.add_note(f"history number {number} of seed {seed}: repeat it alone with seed {seed + number}")
            raise


def random_configuration(chance: random.Random) -> Configured:
    one_of = chance.choice
    pools = tuple(
        Pool(
            name,
            medium=medium,
            capacity=one_of([0, 1, 2, 3]),
            resources=one_of([Resources(), Resources(), Resources(cpu=2)]),
            price_per_hour=one_of([0.0, 0.3, 1.0]),
            cooldown=one_of([0.0, 3.0]),
        )
        for name, medium, share in POOLS
        if chance.random() < share
    )
    names = tuple(each.name for each in pools)
    drawn = tuple(
        Queue(
            name,
            pools=one_of([(), names[:1], names]),
            action_concurrency=one_of([0, 1, 2, 3]),
            run_concurrency=one_of([0, 0, 1, 2]),
            depth=one_of([0, 0, 1, 3]),
            on_full=one_of(["refuse", "wait", "wait"]),
            max_resources=one_of([Resources(), Resources(), Resources(cpu=2)]),
            priority=one_of([50, 50, 100]),
            scheduling=one_of(["strict_fifo", "greedy_capacity"]),
            fairness=one_of(["round_robin", "fifo"]),
            overlap=one_of(["allow", "allow", "queue", "skip", "replace"]),
            spot_share=one_of([1.0, 1.0, 0.5, 0.0]),
            spend_limit=one_of([0.0, 0.0, 1.5]),
            state=one_of(["active", "active", "active", "held"]),
        )
        for name in QUEUES[: one_of([1, 2, 2, 2, 2])]
    )
    return Configured(drawn, pools)


def random_settings(chance: random.Random) -> Settings:
    one_of = chance.choice
    policy = SpotPolicy(
        fallback=one_of(["final", "final", "first-preemption", "never"]),
        preemptions_without_progress=one_of([1, 2]),
        max_spot_wait=one_of([None, 0, 3]),
        budget=one_of(["uncharged", "uncharged", "single"]),
    )
    backoff = one_of([None, Backoff(2.0, 2.0, jitter=0.5)])
    return Settings(
        queue=one_of(QUEUES[:2]),
        interruptible=policy if chance.random() < 0.6 else None,
        retries=RetryStrategy(one_of([0, 1, 2]), backoff=backoff, system_retries=one_of([0, 1, 2])),
        timeout=Timeout(one_of([None, None, 5]), one_of([None, None, 4]), one_of([None, None, None, 0.5, 12, 40])),
        priority=one_of([50, 50, 100]),
        resources=one_of([Resources(), Resources(cpu=1), Resources(cpu=2)]),
    )
