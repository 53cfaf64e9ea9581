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
    from batchscore.training.outcome import Fitted
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.site import Site


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Tokenised rows with their labels; states are stored under ``name``, of which those at ``taken`` are used."""

    name: str
    input_ids: Sequence[NDArray[np.int32]]
    labels: Sequence[int]
    taken: Sequence[int] | None = None

    def head(self, count: int) -> Piece:
        """The first rows."""
        return Piece(self.name, self.input_ids[:count], self.labels[:count])

    def select(self, rows: Sequence[int], name: str) -> Piece:
        """These rows as a piece of its own."""
        return Piece(name, [self.input_ids[row] for row in rows], [self.labels[row] for row in rows])

    def taken_at(self, rows: Sequence[int]) -> Piece:
        """The same piece, of which these rows are used."""
        return dataclasses.replace(self, taken=rows)

    @property
    def rows(self) -> Sequence[int]:
        """Positions of the rows that are used."""
        return range(len(self.labels)) if self.taken is None else self.taken

    @property
    def labels_used(self) -> list[int]:
        """Their labels."""
        return [self.labels[row] for row in self.rows]


def fit_pieces(
    base: Bundle,
    labels: Sequence[str],
    plan: Hyperparameters,
    pieces: tuple[Piece, Piece],
    site: Site,
    folder: Path | None = None,
) -> Fitted:
    """Train a new classifier on the first piece, watched on the second; checkpoints go to ``folder``, or the site's."""
    model = _new_classifier(base, labels, plan, site)
    weights = class_weights(plan, pieces[0].labels_used, len(labels))
    own = dataclasses.replace(site, folder=folder or site.folder)
    if not plan.is_whole and takes_states(model, pieces[0].input_ids):
        precision = precision_for(len(pieces[0].labels), site.precision)
        stored = [
            StoredRows(_states(model, plan, piece, precision, site), piece.labels).select(piece.rows)
            for piece in pieces
        ]
        fitted = fit_head(model, (stored[0], stored[1]), plan, weights, own)
        return dataclasses.replace(fitted, precision=precision)
    train, evaluation = (
        dataset_of([piece.input_ids[row] for row in piece.rows], piece.labels_used) for piece in pieces
    )
    return fit(model, load_tokenizer(base), (train, evaluation), plan, weights, own)


def piece_states(
    base: Bundle, labels: Sequence[str], plan: Hyperparameters, piece: Piece, site: Site
) -> NDArray[np.float32] | None:
    """First-token states ``[n, H]`` float32 of a piece; ``None`` for a base whose head sees something else."""
    model = _new_classifier(base, labels, plan, site)
    if not takes_states(model, piece.input_ids):
        return None
    return _states(model, plan, piece, precision_for(len(piece.labels), site.precision), site)


def _states(
    model: Any, plan: Hyperparameters, piece: Piece, precision: str, site: Site
) -> NDArray[np.float32]:
    return states_of(model, piece.input_ids, f"{piece.name}-{plan.pooling}", site, precision)


def _new_classifier(base: Bundle, labels: Sequence[str], plan: Hyperparameters, site: Site) -> Any:
    from transformers import set_seed

    set_seed(plan.seed)  # before the new head gets its random weights
    return load_classifier(base, labels, plan, site.device)


def class_weights(plan: Hyperparameters, labels: Sequence[int], n_labels: int) -> list[float] | None:
    """What each label counts for in the loss: ``rows / (labels * rows of the label)`` where balance is asked for.

    The mean over the rows is 1. A label without a row counts 1.
    """
    if plan.class_weights == "none":
        return None
    counts = collections.Counter(labels)
    present = len(counts)
    return [len(labels) / (present * counts[k]) if counts[k] else 1.0 for k in range(n_labels)]
