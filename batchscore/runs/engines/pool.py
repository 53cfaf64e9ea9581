"""Scoring processes of any kind, as whoever hands out shards sees them: what can be asked of a pool, and what it tells.

A process is *up* once it has the libraries and the bundle, *ready* once it has loaded and checked the model as the first one
found it, and *gone* when it died; its pool puts another in its place when it can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

MOST_AT_ONCE = 16
"""Shards that a process is given at a time."""


class Ready(NamedTuple):
    """What a process tells of its model, once it is loaded and checked."""

    compute: Mapping[str, Any]
    """The facts of the computation: backend, device, precision, token budget and so on."""
    deciding: str
    """By what its answers are known (:func:`batchscore.model.answer_bits.deciding_fingerprint`)."""
    reply: str
    """What it left in the run's staging folder, if it sees that and the inputs, so that it can read and stage by itself; or empty."""
    place: str
    """Where it runs, for messages."""
    at_once: int = 2
    """Shards that it wants at a time, so that its device never waits: one that is computed, and those that are tokenised meanwhile."""


class Up(NamedTuple):
    """A process is up."""

    worker: int


class Answered(NamedTuple):
    """A process answers what it was asked: to get ready (``task`` is None), or a task by its number."""

    worker: int
    task: int | None
    answer: Any


class Failed(NamedTuple):
    """A process could not do what it was asked, and lives."""

    worker: int
    task: int | None
    error: Exception


class Gone(NamedTuple):
    """A process died; what it had is not done."""

    worker: int
    reason: str


Event = Up | Answered | Failed | Gone


class Pool(Protocol):
    """Scoring processes; workers are known by numbers that are never used again."""

    def events(self, seconds: float) -> Sequence[Event]:
        """What happened; waits up to ``seconds`` for something to happen, and starts processes where some are missing.

        Raises:
            BatchscoreError: there cannot be any process.
        """

    def get_ready(self, worker: int, recorded: Mapping[str, Any]) -> None:
        """Have a process load the model as it is ``recorded``; empty for the first one, which finds out."""

    def submit(self, worker: int, task: int, payload: Any) -> None:
        """Give a process a task."""

    def turn_away(self, worker: int) -> None:
        """Use a process no more, nor another one in its place."""

    def shortage(self) -> str:
        """What there is of what processes run on, for whoever waits for more of them."""

    def close(self) -> None:
        """End all processes."""
