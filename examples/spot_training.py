"""Trains a classifier of handwritten digits on spot workers that a market takes away again and again.

The training is real, the worker processes are really killed, and the accuracy is that on digits which were held
back. Only the market is made up: three machines last a few seconds each, the next ones are gone before the work can
begin, so that it ends on-demand. Stop it with Ctrl-C if you like: it says how to go on.
"""

import asyncio
import pickle
import sys
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import flyteish
from flyteish import Pool, Session, ctx
from flyteish.interfaces import Notice
from flyteish.markets import ScriptedMarket

EPOCHS = 180
SAVE_EVERY = 20  # epochs

env = flyteish.TaskEnvironment("digits")


class Digits(NamedTuple):
    images: np.ndarray
    labels: np.ndarray


class Network:
    """One hidden layer, trained by stochastic gradient descent."""

    def __init__(self, hidden: int = 512) -> None:
        random = np.random.default_rng(0)
        self.inner = random.normal(0, (2 / 64) ** 0.5, (64, hidden)).astype(np.float32)
        self.outer = random.normal(0, (2 / hidden) ** 0.5, (hidden, 10)).astype(np.float32)
        self.epochs = 0

    def train_one_epoch(self, digits: Digits, rate: float = 0.03) -> None:
        self.epochs += 1
        order = np.random.default_rng(self.epochs).permutation(len(digits.labels))
        for batch in np.array_split(order, len(order) // 16):
            images, labels = digits.images[batch], digits.labels[batch]
            hidden = np.maximum(images @ self.inner, 0)
            error = softmax(hidden @ self.outer)
            error[np.arange(len(batch)), labels] -= 1
            inner_error = (error @ self.outer.T) * (hidden > 0)
            self.outer -= rate / len(batch) * hidden.T @ error
            self.inner -= rate / len(batch) * images.T @ inner_error

    def accuracy(self, digits: Digits) -> float:
        guesses = np.argmax(np.maximum(digits.images @ self.inner, 0) @ self.outer, axis=1)
        return float(np.mean(guesses == digits.labels))


def softmax(scores: np.ndarray) -> np.ndarray:
    powers: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@env.task(interruptible=True, retries=3)
def train(seen: Digits, held_back: Digits, epochs: int) -> float:
    """Learn from the one, and say which share of the other is read correctly."""
    checkpoint = ctx().checkpoint
    network = Network()
    saved = checkpoint.read()
    if saved is not None:
        vars(network).update(pickle.loads(saved))

    @ctx().interruption.on_notice
    def told(notice: Notice) -> None:
        print(f"{notice.kind} notice, {notice.seconds:g} s left: saving after this epoch")

    while network.epochs < epochs:
        with threadpool_limits(1):  # a core for each worker
            network.train_one_epoch(seen)
        if network.epochs % SAVE_EVERY == 0 or checkpoint.due():  # due at once when a notice came
            checkpoint.save_sync(pickle.dumps(vars(network)), progress=network.epochs / epochs)
            print(f"epoch {network.epochs} saved: reads {network.accuracy(held_back):.1%} of the held-back digits")
    return network.accuracy(held_back)


def digits() -> tuple[Digits, Digits]:
    """Three quarters to learn from, each also moved by a pixel in every direction, and the rest as it is."""
    from sklearn.datasets import load_digits  # here, since a worker that starts anew need not import it
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    seen, held_back, seen_labels, held_back_labels = train_test_split(images, labels, random_state=0, stratify=labels)
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    moved = [np.roll(seen.reshape(-1, 8, 8), move, axis=(1, 2)).reshape(-1, 64) for move in moves]
    return Digits(np.concatenate(moved), np.tile(seen_labels, len(moves))), Digits(held_back, held_back_labels)


def pools() -> list[Pool]:
    """Worker processes of this machine, at the prices of a cloud."""
    market = ScriptedMarket(reclaims=[2, 1.5, 2, 0, 0, 0], notice_seconds=1)
    return [
        Pool("spot", "spot", engine="processes", price_per_hour=0.30, market=market),
        Pool("on-demand", engine="processes", price_per_hour=1.00),
    ]


async def main() -> None:
    """Start the training, tell what happens while it happens, and sum up."""
    async with Session(pools=pools()) as session:
        run = session.run(train, *digits(), epochs=EPOCHS)
        print(f"run {run.name}\n{train.plan()}\n")
        try:
            await tell(run)
            report(run, await run)
        except asyncio.CancelledError:
            print(f"\nstopped; go on from the last checkpoint with: flyteish resume {run.name}")
            raise


async def tell(run: flyteish.Run[float]) -> None:
    """Print what happens, while it happens; checkpoints are only counted."""
    started, checkpoints = 0.0, 0
    async for event in run.events():
        started = started or event.at
        if event.kind == "CheckpointCommitted":
            checkpoints += 1
            continue
        saved = f" ({checkpoints} checkpoints so far)" if event.kind == "AttemptEnded" else ""
        print(f"{event.at - started:6.1f} s  {event.text}{saved}", flush=True)


def report(run: flyteish.Run[float], accuracy: float) -> None:
    """What happened, why, and what it cost."""
    (action,) = run.actions()
    print(f"\n{'attempt':9}{'try':8}{'medium':11}{'seconds':>8}{'kept':>7}  {'paid by':13}how it ended")
    for attempt in action.attempts:
        seconds = attempt.ended_at - attempt.admitted_at
        kept = seconds if attempt.end == "succeeded" else max(0.0, attempt.last_checkpoint_at - attempt.admitted_at)
        print(
            f"{attempt.generation:<9}{attempt.user_attempt} of {action.max_attempts:<3}{attempt.medium:11}"
            f"{seconds:8.1f}{kept:7.1f}  {attempt.charged or '-':13}{attempt.cause or attempt.end}"
        )
    last, cost = action.attempts[-1], run.cost()
    print(f"\nattempt {last.generation} ran {last.medium} because: {last.why}")
    print(f"accuracy on held-back digits: {accuracy:.1%}")
    print(f"machine time: {cost.spot_seconds:.1f} s on spot, {cost.on_demand_seconds:.1f} s on-demand")
    print(f"of which kept: {cost.seconds - cost.lost_seconds:.1f} s, lost to reclaims: {cost.lost_seconds:.1f} s")
    assert cost.on_demand_dollars is not None  # both pools have a price
    print(f"cost: ${cost.dollars:.4f}; the same work on-demand, undisturbed: ${cost.on_demand_dollars:.4f}")
    print(f"saved: {1 - cost.dollars / cost.on_demand_dollars:.0%}")
    print(f"the whole story: flyteish why {run.name}; what the workers said: flyteish logs {run.name}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
