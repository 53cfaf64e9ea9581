"""The context of a training: work folder, device, progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Is told how many rows are done."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Add ``amount`` rows."""

    def close(self) -> None:
        """No more rows follow."""


class NoProgress:
    """A progress that shows nothing."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingContext:
    """A work folder, a device, and where progress is reported."""

    folder: Path
    device: str
    precision: str
    """The device's fastest precision, as measured when this training first started."""
    progress: Progress
    tell: Tell
    save_seconds: float = 60.0
    """The least time between two checkpoints."""
    padding_mode: str = "right"
    """How the base bears padding (:mod:`batchscore.model.probing`)."""
