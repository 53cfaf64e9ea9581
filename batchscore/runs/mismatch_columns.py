"""What a mismatch is, and what is told of it, by the task of the model: the one place that picks it."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from batchscore.formats.answers import SeveralLabels
from batchscore.records import Task
from batchscore.reports.row_groups import Group, LabelGroup, ValueGroup

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.evaluation import Basis
    from batchscore.formats.staged import StagedPart

FURTHEST = 1000
"""Rows that are listed where no distance makes a row a mismatch."""
IS_ISSUE = "is_label_issue"
_RANKING = (("label_quality", pa.float32()), (IS_ISSUE, pa.bool_()))
_ENDS = (("n_tokens", pa.int32()), ("truncated", pa.bool_()))


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """``m`` mismatches of a run: part and index of each, and its label quality."""

    part: NDArray[np.int32]
    index: NDArray[np.int32]
    quality: NDArray[np.float32]
    is_issue: NDArray[np.bool_]
    n_tokens: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.part)

    def in_order(self) -> Keys:
        """Sorted by label quality, lowest first; ties keep the order of files and rows."""
        return self.at(np.lexsort((self.index, self.part, self.quality)))

    def at(self, places: NDArray[np.integer[Any]] | slice) -> Keys:
        """Those at ``places``."""
        return Keys(
            self.part[places],
            self.index[places],
            self.quality[places],
            self.is_issue[places],
            self.n_tokens[places],
        )


def joined_keys(pieces: Sequence[Keys]) -> Keys:
    """Those of several pieces, one after the other."""
    if not pieces:
        none = np.empty(0, dtype=np.int32)
        return Keys(none, none, none.astype(np.float32), none.astype(np.bool_), none)
    names = [field.name for field in dataclasses.fields(Keys)]
    return Keys(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


class MismatchColumns(abc.ABC):
    """Mismatches of one task."""

    most: int | None = None
    """Rows that are listed at most; None: all."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis

    @property
    def fields(self) -> list[pa.Field]:
        """The report's own columns between ``file``, ``row`` and the id, and the text."""
        return [pa.field(name, kind) for name, kind in (*self._fields(), *_ENDS)]

    def arrays(self, part: StagedPart, keys: Keys) -> dict[str, pa.Array]:
        """The columns of some rows: ``part`` has only those that ``keys`` are of."""
        return {**self._arrays(part, keys), "n_tokens": part.added[-3], "truncated": part.added[-2]}

    @abc.abstractmethod
    def found(self, part: StagedPart) -> NDArray[np.int64]:
        """Indices of the mismatches of a part."""

    @abc.abstractmethod
    def is_in(self, given: NDArray[Any], predicted: NDArray[Any], group: Group) -> NDArray[np.bool_]:
        """Which mismatches are of a group of the page, ``[m]``, from what ``m`` of them were given and got, as a part has them."""

    @abc.abstractmethod
    def _fields(self) -> list[tuple[str, pa.DataType]]: ...

    @abc.abstractmethod
    def _arrays(self, part: StagedPart, keys: Keys) -> dict[str, pa.Array]: ...


class _OneLabel(MismatchColumns):
    """A known label and another prediction."""

    def found(self, part: StagedPart) -> NDArray[np.int64]:
        given, predicted = part.given, part.predicted
        return np.flatnonzero((given >= 0) & (predicted >= 0) & (given != predicted))

    def is_in(self, given: NDArray[Any], predicted: NDArray[Any], group: Group) -> NDArray[np.bool_]:
        if not isinstance(group, LabelGroup):
            raise TypeError(f"rows with one label are not grouped by {group}")
        return np.asarray((given == group.missing) & (predicted == group.extra))

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [
            ("given_label", pa.string()),
            ("predicted_label", pa.string()),
            ("probability", pa.float32()),
            ("prob_given", pa.float32()),
            *_RANKING,
        ]

    def _arrays(self, part: StagedPart, keys: Keys) -> dict[str, pa.Array]:
        rows = np.arange(len(keys))
        return {
            "given_label": pa.array([self._basis.labels[k] for k in part.given], pa.string()),
            "predicted_label": part.added[0],
            "probability": part.added[1],
            "prob_given": pa.array(part.predictions.probabilities[rows, part.given]),
            **_ranking(keys),
        }


class _SeveralLabels(MismatchColumns):
    """Known labels, of which at least one is not predicted, or one more is."""

    def found(self, part: StagedPart) -> NDArray[np.int64]:
        given, predicted = part.given, part.predicted
        is_known = (given >= 0).all(axis=1) & (predicted >= 0).all(axis=1)
        return np.flatnonzero(is_known & (given != predicted).any(axis=1))

    def is_in(self, given: NDArray[Any], predicted: NDArray[Any], group: Group) -> NDArray[np.bool_]:
        if not isinstance(group, LabelGroup):
            raise TypeError(f"rows with several labels are not grouped by {group}")
        found = np.ones(len(given), dtype=np.bool_)
        if group.missing is not None:
            found &= (given[:, group.missing] > 0) & (predicted[:, group.missing] <= 0)
        if group.extra is not None:
            found &= (predicted[:, group.extra] > 0) & (given[:, group.extra] <= 0)
        return found

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        names = ("given_labels", "predicted_labels", "missing_labels", "extra_labels")
        return [*((name, pa.list_(pa.string())) for name in names), *_RANKING]

    def _arrays(self, part: StagedPart, keys: Keys) -> dict[str, pa.Array]:
        lists = cast("SeveralLabels", part.answers).lists
        given, predicted = part.given > 0, part.predicted > 0
        return {
            "given_labels": lists(given),
            "predicted_labels": lists(predicted),
            "missing_labels": lists(given & ~predicted),
            "extra_labels": lists(predicted & ~given),
            **_ranking(keys),
        }


class _OneValue(MismatchColumns):
    """A value further from the given one than the tolerance; without a tolerance the rows furthest off."""

    def __init__(self, basis: Basis) -> None:
        super().__init__(basis)
        self.most = FURTHEST if basis.tolerance is None else None

    def found(self, part: StagedPart) -> NDArray[np.int64]:
        error = _errors(part)
        known = np.isfinite(error)
        return np.flatnonzero(known & (np.abs(np.where(known, error, 0)) > (self._basis.tolerance or 0.0)))

    def is_in(self, given: NDArray[Any], predicted: NDArray[Any], group: Group) -> NDArray[np.bool_]:  # noqa: ARG002
        if not isinstance(group, ValueGroup):
            raise TypeError(f"numbers are not grouped by {group}")
        return np.asarray((given >= group.low) & (given < group.high))

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [("given_value", pa.float64()), ("value", pa.float32()), ("error", pa.float64())]

    def _arrays(self, part: StagedPart, keys: Keys) -> dict[str, pa.Array]:  # noqa: ARG002
        return {"given_value": pa.array(part.given), "value": part.added[0], "error": pa.array(_errors(part))}


def _errors(part: StagedPart) -> NDArray[np.float64]:
    """Value minus given one, float64 ``[n]``; not finite where either is missing."""
    values: NDArray[np.float64] = part.predictions.probabilities[:, 0].astype(np.float64) - part.given
    return values


def _ranking(keys: Keys) -> Mapping[str, Any]:
    return {"label_quality": pa.array(keys.quality), IS_ISSUE: pa.array(keys.is_issue)}


_KINDS: Mapping[Task, type[MismatchColumns]] = {
    Task.SINGLE_LABEL: _OneLabel,
    Task.MULTI_LABEL: _SeveralLabels,
    Task.REGRESSION: _OneValue,
}


def mismatch_columns_of(basis: Basis) -> MismatchColumns:
    """The mismatches of a run."""
    return _KINDS[basis.task](basis)
