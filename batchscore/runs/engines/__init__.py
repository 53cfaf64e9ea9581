"""Where shards run: in this process, or in scoring processes, which are on this machine's GPUs or on a Ray cluster."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import UsageError, missing_extra
from batchscore.model.gpus import alone, of_one_kind, usable_gpus
from batchscore.model.loading import needs_torch
from batchscore.model.tuning import MIN_ROWS
from batchscore.runs.engines.pool import Pool
from batchscore.runs.engines.processes import Place, Processes
from batchscore.runs.engines.ray import RayCluster
from batchscore.system.cores import usable_cores
from batchscore.system.terminal import NOTICE

if TYPE_CHECKING:
    from batchscore.config import ComputeSettings, ScoreSettings
    from batchscore.runs.shard_scoring import Recipe

__all__ = ["ENGINES", "pool_of", "refuse_unusable"]

_LOG = logging.getLogger(__name__)
ENGINES = ("local", "ray")


def refuse_unusable(settings: ScoreSettings) -> None:
    """Refuse an unknown engine, one whose package is missing, or what only one of them knows.

    Raises:
        UsageError: says which.
    """
    name = settings.engine
    if name not in ENGINES:
        raise UsageError(f"There is no engine {name!r}; there are: {', '.join(ENGINES)}.")
    if name == "ray" and importlib.util.find_spec("ray") is None:
        raise missing_extra("--engine ray", "ray")
    if name != "ray" and settings.compute.least_workers > 1:
        raise UsageError("--workers MIN-MAX is for --engine ray; name one number.")


def pool_of(
    settings: ScoreSettings, recorded: Mapping[str, Any], rows: int
) -> Callable[[Recipe], Pool] | None:
    """What starts the scoring processes of a run of so many rows; None if it scores in this process.

    ``recorded`` are the facts of an earlier start's computation, or empty.
    """
    if settings.engine == "ray":
        return lambda recipe: RayCluster(recipe, settings.compute.workers, recorded)
    places = places_of(settings.compute, recorded, rows)
    if len(places) < 2:
        return None
    cores = usable_cores() // len(places)
    return lambda recipe: Processes(dataclasses.replace(recipe, cores=cores), places)


def places_of(compute: ComputeSettings, recorded: Mapping[str, Any], rows: int) -> list[Place]:
    """A place for each GPU of this machine that ``--device auto`` takes; none if this process scores.

    A run of few rows has ended before several processes are up, and whoever scores many small files keeps one model.
    """
    if rows < MIN_ROWS:
        return []
    name = recorded.get("backend", compute.backend)
    precision = recorded.get("precision", compute.precision)
    if compute.device != "auto" or recorded.get("device") == "cpu" or not needs_torch(name, precision):
        return []
    gpus = usable_gpus()
    chosen = of_one_kind(gpus)
    if others := [f"cuda:{gpu.place} ({gpu.kind})" for gpu in gpus if gpu not in chosen]:
        taken = f"{len(chosen)} x {chosen[0].kind}"
        _LOG.log(NOTICE, "GPUs of one kind are taken, %s; not %s", taken, ", ".join(others))
    return [Place(f"cuda:{gpu.place}", alone(gpu)) for gpu in chosen]
