"""What the evaluations of all tasks have in common: tallies that add up, and their state as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from batchscore.errors import DataError
from batchscore.evaluation.slices import Slices
from batchscore.evaluation.tally import Tally


class Accumulation(ABC):
    """Tallies of rows: every attribute that is a :class:`Tally`, and ``slices``."""

    STATE_FORMAT: ClassVar[int]
    slices: Slices

    @property
    @abstractmethod
    def _basis(self) -> dict[str, Any]:
        """The arguments of ``__init__`` by name, as JSON values; only equal ones add up."""

    def _tallies(self) -> dict[str, Tally]:
        return {name: tally for name, tally in vars(self).items() if isinstance(tally, Tally)}

    def merge(self, other: Self) -> None:
        """Add the rows of ``other``; raises ``ValueError`` if it measures the answers of another model."""
        if other._basis != self._basis:
            raise ValueError(f"evaluations of different models: {self._basis} and {other._basis}")
        for name, tally in self._tallies().items():
            tally.merge(getattr(other, name))
        self.slices.merge(other.slices)

    def to_state(self) -> dict[str, Any]:
        """The tallies as JSON values, to be stored with a part; :meth:`from_state` gives an equal evaluation."""
        return {
            "format": self.STATE_FORMAT,
            **self._basis,
            **{name: tally.to_state() for name, tally in self._tallies().items()},
            "slices": self.slices.to_state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_state`; raises :class:`DataError` if ``state`` cannot be read."""
        if state.get("format") != cls.STATE_FORMAT:
            raise DataError(
                f"the stored evaluation has format {state.get('format')!r}, not {cls.STATE_FORMAT}; score again"
            )
        try:
            self = cls._of_state(state)
            for name, tally in self._tallies().items():
                tally.load_state(state[name])
            self.slices = type(self.slices).from_state(state["slices"])
        except KeyError as error:
            raise DataError(f"the stored evaluation lacks {error}; run the scoring again") from error
        return self

    @classmethod
    @abstractmethod
    def _of_state(cls, state: Mapping[str, Any]) -> Self:
        """An empty evaluation of the same answers."""
