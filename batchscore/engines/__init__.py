"""Where parts run: an engine is one function and one entry in ``ENGINES``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from batchscore.engines import local
from batchscore.records import Part, Predictions, Rows
from batchscore.scoring import Model

__all__ = ["ENGINES", "Engine"]

Engine = Callable[[Iterable[tuple[Part, Rows]], Model, Callable[[Part, Rows, Predictions], None]], None]
"""Takes the parts to score with their rows, the model, and what is to be called with each result, in order."""

ENGINES: dict[str, Engine] = {"local": local.run}
