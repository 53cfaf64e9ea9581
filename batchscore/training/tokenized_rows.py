"""Rows to train on in, a trained classifier out, by the way that suits them: on stored states, or through the base."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.training.base_model import load_classifier, load_tokenizer
from batchscore.training.features import precision_for, states_of, takes_states
from batchscore.training.fitting import dataset_of, fit
from batchscore.training.head_fitting import StoredRows, fit_head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.training.context import TrainingContext
    from batchscore.training.outcome import Fitted
    from batchscore.training.settings import Hyperparameters


@dataclasses.dataclass(frozen=True, slots=True)
class TokenizedRows:
    """Tokenised rows with their labels; states are stored under ``name``, of which those at ``taken`` are used."""

    name: str
    input_ids: Sequence[NDArray[np.int32]]
    labels: Sequence[int]
    taken: Sequence[int] | None = None

    def head(self, count: int) -> TokenizedRows:
        """The first rows."""
        return TokenizedRows(self.name, self.input_ids[:count], self.labels[:count])

    def select(self, rows: Sequence[int], name: str) -> TokenizedRows:
        """These rows by themselves, under a name of their own."""
        return TokenizedRows(name, [self.input_ids[row] for row in rows], [self.labels[row] for row in rows])

    def taken_at(self, rows: Sequence[int]) -> TokenizedRows:
        """The same rows, of which those at these positions are used."""
        return dataclasses.replace(self, taken=rows)

    @property
    def positions(self) -> Sequence[int]:
        """Positions of the rows that are used."""
        return range(len(self.labels)) if self.taken is None else self.taken

    @property
    def labels_used(self) -> list[int]:
        """Their labels."""
        return [self.labels[row] for row in self.positions]


def fit_rows(
    base: Bundle,
    labels: Sequence[str],
    plan: Hyperparameters,
    splits: tuple[TokenizedRows, TokenizedRows],
    context: TrainingContext,
    folder: Path | None = None,
) -> Fitted:
    """Train a new classifier on the first split, watched on the second; checkpoints go to ``folder``, or the context's."""
    model = _new_classifier(base, labels, plan, context)
    weights = class_weights(plan, splits[0].labels_used, len(labels))
    own = dataclasses.replace(context, folder=folder or context.folder)
    if not plan.is_whole and takes_states(model, splits[0].input_ids):
        precision = precision_for(len(splits[0].labels), context.precision)
        stored = [
            StoredRows(_states(model, plan, rows, precision, context), rows.labels).select(rows.positions)
            for rows in splits
        ]
        fitted = fit_head(model, (stored[0], stored[1]), plan, weights, own)
        return dataclasses.replace(fitted, precision=precision)
    train, evaluation = (
        dataset_of([rows.input_ids[row] for row in rows.positions], rows.labels_used) for rows in splits
    )
    return fit(model, load_tokenizer(base), (train, evaluation), plan, weights, own)


def row_states(
    base: Bundle, labels: Sequence[str], plan: Hyperparameters, rows: TokenizedRows, context: TrainingContext
) -> NDArray[np.float32] | None:
    """First-token states ``[n, H]`` float32 of the rows; ``None`` for a base whose head sees something else."""
    model = _new_classifier(base, labels, plan, context)
    if not takes_states(model, rows.input_ids):
        return None
    return _states(model, plan, rows, precision_for(len(rows.labels), context.precision), context)


def _states(
    model: Any, plan: Hyperparameters, rows: TokenizedRows, precision: str, context: TrainingContext
) -> NDArray[np.float32]:
    return states_of(model, rows.input_ids, f"{rows.name}-{plan.pooling}", context, precision)


def _new_classifier(
    base: Bundle, labels: Sequence[str], plan: Hyperparameters, context: TrainingContext
) -> Any:
    from transformers import set_seed

    set_seed(plan.seed)  # before the new head gets its random weights
    return load_classifier(base, labels, plan, context.device)


def class_weights(plan: Hyperparameters, labels: Sequence[int], n_labels: int) -> list[float] | None:
    """What each label counts for in the loss: ``rows / (labels * rows of the label)`` where balance is asked for.

    The mean over the rows is 1. A label without a row counts 1.
    """
    if plan.class_weights == "none":
        return None
    counts = collections.Counter(labels)
    present = len(counts)
    return [len(labels) / (present * counts[k]) if counts[k] else 1.0 for k in range(n_labels)]
