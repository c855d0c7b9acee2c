"""Asks a running controller for something of its state, from any other thread, and waits for the answer.

Must not know what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from flyteish._controller.facts import Asked, Recipient
from flyteish._core.state import State

T = TypeVar("T")


def ask(controller: Recipient, question: Callable[[State, float], T]) -> T | None:
    """The answer of ``question(state, now)``, which is called on the controller's thread; None once it is closed."""
    answers: list[T | None] = []
    ready = threading.Event()

    def answer(value: T | None, error: BaseException | None) -> None:
        answers.append(value)
        ready.set()

    if controller.over is not None:
        return None
    controller.post(Asked(question, answer))
    while not ready.wait(0.5):
        if controller.over is not None:
            return None
    return answers[0]
