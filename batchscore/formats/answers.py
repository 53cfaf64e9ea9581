"""The answers of a model in files, by its task: the one place that knows the added columns and how a part is staged.

A task's object is made once for a run (:func:`answers_of`) and goes to whoever writes or reads predictions.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from batchscore.evaluation.acceptance import is_accepted
from batchscore.records import Predictions, Status, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECISION = "decision"
DECISIONS = ("review", "accept")
LIST_JOINT = ";"
"""What stands between the labels of a row in formats without lists."""
_TAIL = (("n_tokens", pa.int32()), ("truncated", pa.bool_()), ("status", pa.string()))


@dataclasses.dataclass(frozen=True, slots=True)
class Answers(abc.ABC):
    """The columns of a model with these labels, ``C`` of them."""

    labels: tuple[str, ...]
    accepted_from: tuple[float | None, ...] | None = None
    """The least probability of each label at which a row is accepted, None for never; without any nothing is decided."""
    prediction: ClassVar[str]
    """Name of the column with the prediction."""

    def fields(self, prefix: str = "") -> list[pa.Field]:
        """The columns added to predictions, in order."""
        return [pa.field(prefix + name, kind) for name, kind in (*self._fields(), *self._tail)]

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names of :meth:`fields`."""
        return _names(self, prefix)

    def held(self, probabilities: str) -> Sequence[int]:
        """Places of the columns that predictions hold of :meth:`fields`, with ``all`` probabilities, the ``top`` one or ``none``."""
        every = len(self.names())
        tail = every - len(self._tail)
        first = {"top": self._first_probability, "none": 1}.get(probabilities, tail)
        return [*range(first), *range(tail, every)]

    def arrays(self, predictions: Predictions) -> list[pa.Array]:
        """The columns themselves; null where nothing was scored."""
        uncounted = predictions.n_tokens < 0
        return [
            *self._arrays(predictions, predictions.status != Status.OK),
            *self._decisions(predictions),
            pa.array(predictions.n_tokens, mask=uncounted),
            pa.array(predictions.truncated, mask=uncounted),
            pa.array([status.text for status in Status], pa.string()).take(pa.array(predictions.status)),
        ]

    def probabilities(self, columns: Sequence[pa.Array]) -> NDArray[np.float32]:
        """``[n, C]`` of the added columns; NaN where nothing was scored."""
        own = columns[self._first_probability : -len(self._tail)]
        return np.stack([column.to_numpy(zero_copy_only=False) for column in own], axis=1)

    def value_names(self) -> Sequence[str]:
        """The names of the columns that :meth:`probabilities` reads."""
        return self.names()[self._first_probability : -len(self._tail)]

    @property
    def _tail(self) -> tuple[tuple[str, pa.DataType], ...]:
        """The columns after the probabilities, which are always held."""
        return _TAIL if self.accepted_from is None else ((DECISION, pa.string()), *_TAIL)

    def _decisions(self, predictions: Predictions) -> list[pa.Array]:
        """``accept`` or ``review``; a row without a prediction is for people, never null, so that no filter loses it."""
        if self.accepted_from is None:
            return []
        predicted = np.where(predictions.status == Status.OK, predictions.predicted, -1)
        best = predictions.probabilities[np.arange(len(predicted)), np.maximum(predicted, 0)]
        accepted = is_accepted(self.accepted_from, predicted, best)
        return [pa.array(DECISIONS, pa.string()).take(pa.array(accepted.astype(np.int8)))]

    @property
    def unjoinable(self) -> str | None:
        """A label that cannot stand in a list of labels in a format without lists; None if all can."""
        return None

    @property
    @abc.abstractmethod
    def given_type(self) -> pa.DataType:
        """The type of given labels in a staged part."""

    @property
    @abc.abstractmethod
    def predicted_type(self) -> pa.DataType:
        """The type of predictions in a staged part, besides the columns for readers."""

    def stored(self, values: NDArray[Any], kind: pa.DataType) -> pa.Array:
        """``given`` or ``predicted`` as one column."""
        return pa.array(values, kind)

    def loaded(self, column: pa.Array) -> NDArray[Any]:
        """The inverse of :meth:`stored`."""
        return np.asarray(column)

    _first_probability: ClassVar[int]

    @abc.abstractmethod
    def _fields(self) -> list[tuple[str, pa.DataType]]: ...

    @abc.abstractmethod
    def _arrays(self, predictions: Predictions, missing: NDArray[np.bool_]) -> list[pa.Array]: ...

    def _probability_fields(self) -> list[tuple[str, pa.DataType]]:
        return [(f"prob_{label}", pa.float32()) for label in self.labels]

    def _probability_arrays(self, predictions: Predictions, missing: NDArray[np.bool_]) -> list[pa.Array]:
        return [pa.array(predictions.probabilities[:, k], mask=missing) for k in range(len(self.labels))]


class OneLabel(Answers):
    """``predicted_label``, its ``probability``, and that of each label."""

    __slots__ = ()
    prediction = "predicted_label"
    _first_probability = 2

    @property
    def given_type(self) -> pa.DataType:
        """An index."""
        return pa.int32()

    @property
    def predicted_type(self) -> pa.DataType:
        """An index."""
        return pa.int32()

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [
            (self.prediction, pa.string()),
            ("probability", pa.float32()),
            *self._probability_fields(),
        ]

    def _arrays(self, predictions: Predictions, missing: NDArray[np.bool_]) -> list[pa.Array]:
        rows = np.arange(len(missing))
        unscored = missing & (predictions.status != Status.ABSTAINED)
        best = predictions.probabilities[rows, np.maximum(predictions.predicted, 0)]
        names = pa.array(self.labels, pa.string()).take(pa.array(predictions.predicted, mask=missing))
        return [names, pa.array(best, mask=missing), *self._probability_arrays(predictions, unscored)]


class SeveralLabels(Answers):
    """``predicted_labels``, a list, and the probability of each label for itself."""

    __slots__ = ()
    prediction = "predicted_labels"
    _first_probability = 1

    @property
    def given_type(self) -> pa.DataType:
        """A number for each label."""
        return pa.list_(pa.int8(), len(self.labels))

    @property
    def predicted_type(self) -> pa.DataType:
        """A number for each label."""
        return self.given_type

    @property
    def unjoinable(self) -> str | None:
        """The first label with the joint, or that a list in JSON could be taken for."""
        return next((each for each in self.labels if LIST_JOINT in each or each.startswith("[")), None)

    def stored(self, values: NDArray[Any], kind: pa.DataType) -> pa.Array:
        """Lists of one length."""
        flat = pa.array(np.ascontiguousarray(values).reshape(-1), pa.int8())
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)

    def loaded(self, column: pa.Array) -> NDArray[Any]:
        """``[n, C]``."""
        return np.asarray(column.flatten()).reshape(-1, len(self.labels))

    def lists(self, chosen: NDArray[np.bool_], missing: NDArray[np.bool_] | None = None) -> pa.Array:
        """The labels of each row in the order of the model's, from ``chosen[n, C]``; null where ``missing[n]``."""
        ends = np.cumsum(chosen.sum(axis=1), dtype=np.int32)
        names = pa.array(self.labels, pa.string()).take(pa.array(np.nonzero(chosen)[1]))
        mask = None if missing is None else pa.array(missing)
        return pa.ListArray.from_arrays(pa.array(np.append(np.int32(0), ends)), names, mask=mask)

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [(self.prediction, pa.list_(pa.string())), *self._probability_fields()]

    def _arrays(self, predictions: Predictions, missing: NDArray[np.bool_]) -> list[pa.Array]:
        chosen = (predictions.predicted > 0) & ~missing[:, None]
        return [self.lists(chosen, missing), *self._probability_arrays(predictions, missing)]


class OneValue(Answers):
    """``value``, a number."""

    __slots__ = ()
    prediction = "value"
    _first_probability = 0

    @property
    def given_type(self) -> pa.DataType:
        """A number."""
        return pa.float64()

    @property
    def predicted_type(self) -> pa.DataType:
        """A number."""
        return pa.float32()

    def _fields(self) -> list[tuple[str, pa.DataType]]:
        return [(self.prediction, pa.float32())]

    def _arrays(self, predictions: Predictions, missing: NDArray[np.bool_]) -> list[pa.Array]:
        return [pa.array(predictions.probabilities[:, 0], mask=missing)]


@functools.lru_cache(maxsize=16)
def _names(answers: Answers, prefix: str) -> tuple[str, ...]:
    """Made once for a run: they are asked for with every file."""
    return tuple(field.name for field in answers.fields(prefix))


_KINDS: Mapping[Task, type[Answers]] = {
    Task.SINGLE_LABEL: OneLabel,
    Task.MULTI_LABEL: SeveralLabels,
    Task.REGRESSION: OneValue,
}


def answers_of(
    task: Task, labels: Sequence[str], accepted_from: Sequence[float | None] | None = None
) -> Answers:
    """The columns of a model, with ``decision`` if rows are ``accepted_from`` a probability on.

    >>> answers_of(Task.REGRESSION, ("score",)).names()
    ['value', 'n_tokens', 'truncated', 'status']
    """
    return _KINDS[task](tuple(labels), None if accepted_from is None else tuple(accepted_from))
