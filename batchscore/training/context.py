"""Where a training happens, and who is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Progress(Protocol):
    """Something that is told how many rows are done."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Note ``amount`` rows more."""

    def close(self) -> None:
        """There is no more to come."""


class Unwatched:
    """A progress that nobody looks at."""

    def add(self, amount: int, *, counted: bool = True) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingContext:
    """A work folder, a device, and who watches."""

    folder: Path
    device: str
    precision: str
    """The fastest precision of the device, as it was measured when this training first began."""
    progress: Progress
    tell: Tell
    save_seconds: float = 60.0
    """Between two checkpoints at the least."""
