"""The table of what can happen, one row per kind of step: how it is drawn, and how it is done.

``draw`` looks at the world and returns the step's arguments, or None where there is nobody to do it to. ``do`` does it
and returns False where it does not apply (in a history from which steps were left out). Every row is exercised, or
the test of the harness complains.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flyteish._core.model.events import (
    ActionSubmitted,
    AttemptEnded,
    AttemptNoticed,
    AttemptOrdered,
    AttemptPending,
    AttemptPlaced,
    CancelRequested,
    CheckpointCommitted,
    CheckpointSkipped,
    NoticeWithdrawn,
    ValueTraced,
)
from flyteish._core.model.ids import ActionKey, AttemptKey
from flyteish._core.model.records import TERMINAL, Action
from flyteish._core.model.values import CheckpointRecord, Payload
from tests.core.world import Live
from tests.histories.ends import ENDS
from tests.histories.setups import POOLS, QUEUES

if TYPE_CHECKING:
    from tests.histories.player import Player

Arguments = tuple[Any, ...] | None
_CACHED = Payload(b"cached")
_POOLS: Final = tuple(name for name, _, _ in POOLS)
_FAILURES: Final = tuple(how for how, seen in ENDS.items() if seen.evidence.result is None)
_NOTICES: Final = ("rebalance", "terminate", "drain", "shutdown", "relocate")


class Kind(NamedTuple):
    """One row."""

    weight: int
    draw: Callable[[Random, Player], Arguments]
    do: Callable[..., bool]


# -- whom it concerns ------------------------------------------------------------------------------------------------


def _somebody(chance: Random, player: Player) -> tuple[str, AttemptKey, Live] | None:
    live = list(player.world.live.items())
    if not live:
        return None
    key, its = chance.choice(live)
    return player.name_of(key), key, its


def _one(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0],)


def _nobody(chance: Random, player: Player) -> Arguments:
    return ()


# -- work comes in ---------------------------------------------------------------------------------------------------


def _draw_submit(chance: Random, player: Player) -> Arguments:
    if sum(not run.ended_at for run in player.world.state.runs.values()) > 7:
        return None
    return f"r{player.next_name()}", _task(chance, player), chance.random() < 0.04


def _task(chance: Random, player: Player) -> str:
    """Mostly one whose queue takes work."""
    capacity = player.world.state.capacity
    open_ = [name for name, queue in capacity.queues.items() if queue.state in ("active", "held")]
    tasks = [name for name, task in player.tasks.items() if task.settings.queue in open_]
    return chance.choice(tasks if tasks and chance.random() < 0.9 else list(player.tasks))


def _submit(player: Player, run: str, task: str, cached: bool) -> bool:
    if task not in player.tasks or run in player.names:
        return False
    player.names[run] = ActionKey(run, "a0")
    player.world.runs = int(run[1:]) - 1
    player.world.submit(player.tasks[task], _CACHED if cached else None)
    return True


def _draw_call(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    if found is None:
        return None
    run = player.world.state.runs.get(found[1].run)
    if run is None or len(run.actions) > 12:
        return None
    task = _task(chance, player)
    return f"c{player.next_name()}", found[0], task, chance.choice([0, 0, 1]), chance.random() < 0.04


def _call(player: Player, child: str, caller: str, task: str, inputs: int, cached: bool) -> bool:
    key = player.live(caller)
    if key is None or task not in player.tasks or key.run not in player.world.state.runs:
        return False
    calling = player.world.live[key].calling
    known = set(calling)
    try:
        player.world.call(key, player.tasks[task], bytes([inputs]), _CACHED if cached else None)
    finally:  # where the controller dies of it, the caller asks the next one
        for name in calling.keys() - known:
            player.names[child] = ActionKey(key.run, name)
    return True


def _draw_call_again(chance: Random, player: Player) -> Arguments:
    known = [name for name, key in player.names.items() if (a := player.world.state.action(key)) and _asked_for(a)]
    return (chance.choice(known),) if known else None


def _asked_for(action: Action) -> bool:
    return action.parent is not None and action.phase not in TERMINAL and action.awaited_by > 0


def _call_again(player: Player, child: str) -> bool:
    """The same call arrives twice."""
    action = player.action(child)
    if action is None or not _asked_for(action):
        return False
    player.world.tell(
        ActionSubmitted(
            action.run, action.id, action.parent, action.awaited_by, action.profile.key, action.inputs, b"",
            action.occurrence,
        )
    )  # fmt: skip
    return True


# -- attempts --------------------------------------------------------------------------------------------------------


def _begin(player: Player, who: str) -> bool:
    key = player.live(who)
    if key is None:
        return False
    player.world.begin(key)
    return True


def _draw_work(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], chance.choice([0.5, 2.0, 5.0, 20.0]), chance.random() < 0.7)


def _work(player: Player, who: str, seconds: float, saves: bool) -> bool:
    """It begins, if it has not yet, works for a while and saves, unless it is told to move before."""
    key, world = player.live(who), player.world
    if key is None:
        return False
    world.begin(key)
    world.advance(seconds)
    if saves and key in world.live:
        _checkpoint(player, who, None, torn=False)
    return True


def _draw_return(chance: Random, player: Player) -> Arguments:
    ready = [key for key, live in player.world.live.items() if not live.awaits]
    return (player.name_of(chance.choice(ready)),) if ready else None


def _return(player: Player, who: str) -> bool:
    """It was short: if it was sent ahead, its end says when it had its machine."""
    key = player.live(who)
    if key is not None:
        player.world.placed_at = player.world.now - 0.01
    return _end(player, who, "returns", 0.0)


def _draw_end(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    if found is None:
        return None
    how = chance.choice(_FAILURES) if chance.random() < 0.9 else "returns while reclaimed"
    return found[0], how, round(chance.random(), 2)


def _end(player: Player, who: str, how: str, luck: float) -> bool:
    key = player.live(who)
    if key is None:
        return False
    live = player.world.live[key]
    newest = live.action.attempts[-1]
    began = live.calls or live.awaits or newest.running_at or newest.last_checkpoint_at
    seen = ENDS[how].evidence
    if began and (seen.denied is not None or seen.rejected is not None):
        return False
    player.world.end_as(key, how, luck)
    return True


def _draw_reclaim(chance: Random, player: Player) -> Arguments:
    pools = list(dict.fromkeys(live.pool for live in player.world.live.values()))
    return (chance.choice(pools), chance.choice([0.0, 0.0, 2.0, 120.0])) if pools else None


def _reclaim(player: Player, pool: str, notice: float) -> bool:
    """A pool's machines are all taken away, with ``notice`` seconds between the word and the deed."""
    world = player.world
    gone = [key for key, live in world.live.items() if live.pool == pool]
    if notice:
        for key in gone:
            world.tell(AttemptNoticed(*key, "terminate", notice, "market"))
        world.advance(notice)
    for key in gone:
        if key in world.live:
            world.end_as(key, "reclaimed", 0.5)
    return bool(gone)


def _draw_end_when_due(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    due = player.world.state.next_due()
    if found is None or due is None or due < player.world.now:
        return None
    return found[0], chance.choice(list(ENDS)), round(chance.random(), 2)


def _end_when_due(player: Player, who: str, how: str, luck: float) -> bool:
    """An end that comes in the same moment as something that is due."""
    due = player.world.state.next_due()
    if due is None or due < player.world.now or player.live(who) is None:
        return False
    player.world.now = due
    done = _end(player, who, how, luck)
    player.world.advance(0)
    return done


def _draw_notice(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], chance.choice(_NOTICES), chance.choice([0.0, 30.0, 120.0]))


def _notice(player: Player, who: str, kind: str, seconds: float) -> bool:
    key = player.live(who)
    if key is None:
        return False
    source = "node" if kind == "drain" else "market"
    player.world.tell(AttemptNoticed(*key, kind, seconds, source))
    return True


def _draw_withdraw(chance: Random, player: Player) -> Arguments:
    noticed = [key for key, live in player.world.live.items() if live.action.attempts[-1].notice]
    return (player.name_of(chance.choice(noticed)), chance.choice(["node", "market"])) if noticed else None


def _withdraw(player: Player, who: str, source: str) -> bool:
    """The machine stays after all, says one of those who said that it goes."""
    key = player.live(who)
    if key is None:
        return False
    player.world.tell(NoticeWithdrawn(*key, source, "the node is to be used again"))
    return True


def _order(player: Player, who: str) -> bool:
    key = player.live(who)
    if key is None:
        return False
    player.world.tell(AttemptOrdered(*key, b"digest"))
    return True


def _draw_pend(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], chance.choice(["Unschedulable", "ImagePullBackOff"]))


def _pend(player: Player, who: str, reason: str) -> bool:
    key = player.live(who)
    if key is None:
        return False
    player.world.tell(AttemptPending(*key, reason, "0/3 nodes are available"))
    return True


def _draw_place(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], chance.choice(["n1", "n2"]), chance.choice([None, None, 0.25]))


def _place(player: Player, who: str, node: str, dollars: float | None) -> bool:
    key = player.live(who)
    if key is None:
        return False
    player.world.tell(AttemptPlaced(*key, node, "z1", "m5.large", dollars))
    return True


def _draw_move(chance: Random, player: Player) -> Arguments:
    told = [key for key in player.world.moving if key in player.world.live]
    if not told:
        return None
    how = chance.choice(["reclaimed", "stopped", "raises Other", "exits 0", "returns", "vanishes"])
    return player.name_of(chance.choice(told)), chance.random() < 0.8, chance.random() < 0.6, how


def _move(player: Player, who: str, notice: bool, saves: bool, how: str) -> bool:
    """An attempt that was told to move does so, in good order or not; or it was about to return."""
    key, world = player.live(who), player.world
    if key is None or key not in world.moving:
        return False
    if notice:
        world.tell(AttemptNoticed(*key, "relocate", world.moving[key], "placement"))
    if saves:
        _checkpoint(player, who, None, torn=False)
    return _end(player, who, how, 0.5)


def _draw_checkpoint(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], chance.choice([None, 0.1, 0.5, 1.0]), chance.random() < 0.1)


def _checkpoint(player: Player, who: str, progress: float | None, torn: bool) -> bool:
    key, world = player.live(who), player.world
    if key is None:
        return False
    chain = world.chains.get(ActionKey(key.run, key.action), [])
    record = CheckpointRecord(len(chain) + 1, key.generation, "blob", "bytes", 1, world.now, progress=progress)
    refused, current = len(world.refusals), world.is_current(key)
    if torn and chain:
        world.tell(CheckpointSkipped(*key, len(chain), "torn"))
    world.tell(CheckpointCommitted(*key, record))
    assert (len(world.refusals) == refused) == current, "an attempt that was given up committed a checkpoint"
    return True


def _draw_trace(chance: Random, player: Player) -> Arguments:
    found = _somebody(chance, player)
    return None if found is None else (found[0], f"k{chance.randint(0, 2)}", chance.randint(0, 9))


def _trace(player: Player, who: str, name: str, value: int) -> bool:
    key = player.live(who)
    if key is None:
        return False
    player.world.tell(ValueTraced(*key, name, Payload(bytes([value]))))
    return True


_SAYS: Final = ("begins", "notice", "checkpoint", "trace", *ENDS)


def _draw_zombie(chance: Random, player: Player) -> Arguments:
    gone = [key for key in player.world.seen if key not in player.world.live]
    if not gone:
        return None
    key = chance.choice(gone)
    ahead = key.generation + chance.choice([0, 0, 0, 0, 7])
    return player.name_of(key), ahead, chance.choice(_SAYS)


def _zombie(player: Player, who: str, generation: int, says: str) -> bool:
    """Somebody who was given up, or never was, speaks: twice, or too late, or too early."""
    action, world = player.names.get(who), player.world
    if action is None:
        return False
    key = AttemptKey(action.run, action.action, generation)
    if key in world.live:
        return False
    if says == "begins":
        world.begin(key)
    elif says == "notice":
        world.tell(AttemptNoticed(*key, "terminate", 30.0, "market"))
    elif says == "checkpoint":
        world.tell(CheckpointCommitted(*key, CheckpointRecord(99, generation, "blob", "bytes", 1, world.now)))
    elif says == "trace":
        world.tell(ValueTraced(*key, "k0", Payload(b"late")))
    else:
        world.tell(AttemptEnded(*key, ENDS[says].evidence))
    return True


# -- people, markets, operators --------------------------------------------------------------------------------------


def _draw_cancel(chance: Random, player: Player) -> Arguments:
    names = [name for name in player.names if player.action(name) is not None]
    return (chance.choice(names),) if names else None


def _cancel(player: Player, who: str) -> bool:
    key = player.names.get(who)
    if key is None:
        return False
    player.world.tell(CancelRequested(key.run, key.action, "no longer needed"))
    return True


def _draw_capacity(chance: Random, player: Player) -> Arguments:
    return chance.choice([*_POOLS, "spot", "gone"]), chance.choice([0, 0, 1, None, None, None])


def _capacity(player: Player, pool: str, available: int | None) -> bool:
    player.world.set_capacity(pool, available)
    return True


def _draw_price(chance: Random, player: Player) -> Arguments:
    return chance.choice([*_POOLS, "gone"]), chance.choice([0.0, 0.1, 0.3, 0.6, 2.0])


def _price(player: Player, pool: str, dollars: float) -> bool:
    player.world.set_price(pool, dollars)
    return True


def _draw_queue(chance: Random, player: Player) -> Arguments:
    return chance.choice([*QUEUES, "gone"]), chance.choice(["held", *["active"] * 4, "draining", "drained"])


def _queue(player: Player, queue: str, state: str) -> bool:
    player.world.set_queue(queue, state)
    return True


def _draw_configure(chance: Random, player: Player) -> Arguments:
    many = len(player.configurations)
    return (chance.randrange(many),) if many > 1 else None


def _configure(player: Player, number: int) -> bool:
    if number >= len(player.configurations):
        return False
    player.world.configure(player.configurations[number])
    return True


_EVERY: Final = (0, 0, 1, 1, 2, 3)
"""Which attempts outlive their controller: none, all, every second one, ..."""


def _draw_crash(chance: Random, player: Player) -> Arguments:
    return chance.choice([0.0, 0.0, 2.0, 100.0, -1.5]), chance.choice(_EVERY)


def _crash(player: Player, seconds: float, every: int) -> bool:
    """The controller dies; the next one comes after so long (or its clock is behind), and finds so many alive."""
    player.world.now += seconds
    player.world.behind += max(0.0, -seconds)
    player.world.restart(player.world.outliving(every))
    return True


def _draw_die_inside(chance: Random, player: Player) -> Arguments:
    return (chance.choice(_EVERY),)


def _die_inside(player: Player, every: int) -> bool:
    """The controller dies inside the next event, before it has recorded it."""
    player.world.dies_inside, player.world.every = True, every
    return True


def _forget(player: Player) -> bool:
    for run in list(player.world.state.runs):
        player.world.state.forget(run)
    return True


def _compare(player: Player) -> bool:
    player.world.check_replay()
    return True


# -- time ------------------------------------------------------------------------------------------------------------


def _draw_wait(chance: Random, player: Player) -> Arguments:
    return (chance.choice([0.0, 0.5, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0, 12.0, 40.0, 700.0]),)


def _wait(player: Player, seconds: float) -> bool:
    player.world.advance(seconds)
    return True


def _draw_wait_until_due(chance: Random, player: Player) -> Arguments:
    return () if player.world.state.next_due() is not None else None


def _wait_until_due(player: Player) -> bool:
    due = player.world.state.next_due()
    if due is None:
        return False
    player.world.advance(max(0.0, due - player.world.now))
    return True


def _draw_sleep(chance: Random, player: Player) -> Arguments:
    return (chance.choice([1.0, 1.0, 20.0, 20.0, 86400.0]),)


def _sleep(player: Player, seconds: float) -> bool:
    player.world.sleep(seconds)
    return True


STEPS: Final[dict[str, Kind]] = {
    "submit": Kind(30, _draw_submit, _submit),
    "call": Kind(50, _draw_call, _call),
    "call again": Kind(4, _draw_call_again, _call_again),
    "begin": Kind(30, _one, _begin),
    "work": Kind(16, _draw_work, _work),
    "return": Kind(14, _draw_return, _return),
    "end": Kind(24, _draw_end, _end),
    "reclaim": Kind(8, _draw_reclaim, _reclaim),
    "end when due": Kind(6, _draw_end_when_due, _end_when_due),
    "move": Kind(20, _draw_move, _move),
    "notice": Kind(8, _draw_notice, _notice),
    "withdraw": Kind(4, _draw_withdraw, _withdraw),
    "order": Kind(2, _one, _order),
    "pend": Kind(2, _draw_pend, _pend),
    "place": Kind(4, _draw_place, _place),
    "checkpoint": Kind(14, _draw_checkpoint, _checkpoint),
    "trace": Kind(3, _draw_trace, _trace),
    "zombie": Kind(8, _draw_zombie, _zombie),
    "cancel": Kind(3, _draw_cancel, _cancel),
    "capacity": Kind(5, _draw_capacity, _capacity),
    "price": Kind(2, _draw_price, _price),
    "queue": Kind(2, _draw_queue, _queue),
    "configure": Kind(1, _draw_configure, _configure),
    "crash": Kind(2, _draw_crash, _crash),
    "die inside": Kind(1, _draw_die_inside, _die_inside),
    "forget": Kind(6, _nobody, _forget),
    "compare": Kind(1, _nobody, _compare),
    "wait": Kind(8, _draw_wait, _wait),
    "wait until due": Kind(6, _draw_wait_until_due, _wait_until_due),
    "sleep": Kind(1, _draw_sleep, _sleep),
}
_ALWAYS: Final = ("submit", "wait", "return")


def swarm(chance: Random) -> dict[str, int]:
    """The kinds of this history, and how often: some are left out, so that others get their chance in a row."""
    factors = (0, 1, 1, 1, 4)
    return {name: kind.weight * (chance.choice(factors) or int(name in _ALWAYS)) for name, kind in STEPS.items()}
