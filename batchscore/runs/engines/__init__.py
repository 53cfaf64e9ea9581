"""Where shards run: an engine is one function and one entry in ``ENGINES``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence

from batchscore.errors import UsageError, missing_extra
from batchscore.model.scoring import Model, Watcher
from batchscore.records import Predictions, Rows, Shard
from batchscore.runs.engines import local, ray

__all__ = ["ENGINES", "Engine", "refuse_unusable"]

Engine = Callable[
    [
        Iterable[tuple[Shard, Sequence[Rows]]],
        Model,
        Callable[[Shard, Sequence[Rows], Sequence[Predictions]], None],
        Callable[[Shard], Watcher],
    ],
    None,
]
"""Called with the shards to score and the rows of their parts, the model, a function that takes each result, in order, and one
that gives what sees the micro-batches of a shard."""

ENGINES: dict[str, Engine] = {"local": local.run, "ray": ray.run}


def refuse_unusable(name: str) -> None:
    """Raise :class:`~batchscore.errors.UsageError` for an unknown engine, or one whose package is missing."""
    if name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}; there are: {', '.join(ENGINES)}.")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise missing_extra("--engine ray", "ray")
