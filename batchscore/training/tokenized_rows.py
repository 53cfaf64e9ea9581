"""Tokenised rows in, a trained classifier out: on cached states if possible, else through the base."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import DataError, printable
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.training.base_model import has_last_bias, load_classifier, load_tokenizer
from batchscore.training.features import cls_states_of, precision_for, uses_cls_only
from batchscore.training.fitting import dataset_of, fit
from batchscore.training.head_fitting import StoredRows, fit_head
from batchscore.training.objectives import at_temperature, objective_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.batching import TokenTypes
    from batchscore.model.bundle import Bundle
    from batchscore.records import Encodings
    from batchscore.training.context import TrainingContext
    from batchscore.training.objectives import Objective
    from batchscore.training.outcome import Fitted
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.splits import Goal, Label, TrainingData


@dataclasses.dataclass(frozen=True, slots=True)
class TokenizedRows:
    """Tokenised rows with labels; states are cached for all under ``name``, but only rows in ``subset`` are used."""

    name: str
    input_ids: Sequence[NDArray[np.int32]]
    labels: Sequence[Label]
    token_type_ids: Sequence[NDArray[np.int8]] | None = None
    """Of rows that are two texts; ``None`` if all types are as for one text."""
    soft: NDArray[np.float32] | None = None
    """Targets ``[n, C]`` that are learned instead of the labels: how likely each label is."""
    subset: Sequence[int] | None = None
    further: Mapping[int, Sequence[NDArray[np.int32]]] | None = None
    """Windows of a long text but the first, by its position; of texts that are not learned by windows there are none."""

    def head(self, count: int) -> TokenizedRows:
        """The first rows."""
        return self.select(range(min(count, len(self.labels))), self.name)

    def select(self, rows: Sequence[int], name: str) -> TokenizedRows:
        """These rows alone, under another name."""
        types, further = self.token_type_ids, self.further or {}
        return TokenizedRows(
            name,
            [self.input_ids[row] for row in rows],
            [self.labels[row] for row in rows],
            types and [types[row] for row in rows],
            None if self.soft is None else self.soft[list(rows)],
            further={new: further[row] for new, row in enumerate(rows) if row in further},
        )

    @property
    def n_sequences(self) -> int:
        """Rows and further windows."""
        return len(self.labels) + sum(map(len, (self.further or {}).values()))

    def by_window(self) -> TokenizedRows:
        """Each further window as one more row, with the target of its text."""
        if not self.further:
            return self
        rows = [row for row, windows in self.further.items() for _ in windows]
        more = [ids for windows in self.further.values() for ids in windows]
        every = self.select([*range(len(self.labels)), *rows], self.name)
        return dataclasses.replace(every, input_ids=[*self.input_ids, *more], further=None)

    def types(self, usual: TokenTypes | None) -> Sequence[Sequence[int] | NDArray[np.int8]] | None:
        """Token types of each row, ``usual`` if it has none of its own; ``None`` where all are 0."""
        if self.token_type_ids is not None:
            return self.token_type_ids
        if usual is None or not any((*usual.before, usual.text, *usual.after)):
            return None
        return [usual.of(len(ids)) for ids in self.input_ids]

    def restricted_to(self, rows: Sequence[int]) -> TokenizedRows:
        """The same rows with only those at these positions used."""
        return dataclasses.replace(self, subset=rows)

    @property
    def positions(self) -> Sequence[int]:
        """Positions of the rows that are used."""
        return range(len(self.labels)) if self.subset is None else self.subset

    def targets(self, objective: Objective) -> NDArray[Any]:
        """What is learned of each row."""
        return objective.targets(self.labels) if self.soft is None else self.soft

    @property
    def subset_labels(self) -> list[Label]:
        """Their labels."""
        return [self.labels[row] for row in self.positions]


def rows_of(
    name: str,
    found: Encodings,
    texts: Iterable[int],
    labels: Sequence[Label],
    soft: NDArray[np.float32] | None = None,
) -> TokenizedRows:
    """The rows of some texts, which all have tokens, with what is to be learned of them."""
    windows: dict[int, list[int]] = {}
    for index, text in enumerate(found.row.tolist()):
        windows.setdefault(text, []).append(index)
    chosen, types = [windows[text] for text in texts], found.token_type_ids
    return TokenizedRows(
        name,
        [found.input_ids[each[0]] for each in chosen],
        labels,
        None if types is None else [types[each[0]] for each in chosen],
        soft,
        further={
            row: [found.input_ids[index] for index in each[1:]]
            for row, each in enumerate(chosen)
            if len(each) > 1
        },
    )


def tokenized_splits(
    base: Bundle, data: TrainingData
) -> tuple[dict[str, TokenizedRows], dict[str, NDArray[np.int32]]]:
    """The rows of both splits, and the lengths of their texts before any cut, in tokens.

    Raises:
        DataError: a text that cannot be tokenised.
    """
    splits = {"train": data.train, "evaluation": data.evaluation}
    ids, rows, n_tokens = Tokenizer(base), {}, {}
    for name, split in splits.items():
        found = ids.encode(split.texts, base.long_text)
        for row, reason in found.failures.items():
            place = split.places[row] if split.places else f"{name}, row {row}"
            raise DataError(f"{printable(place)}: {reason}. Take that row out, or shorten its text.")
        rows[name] = rows_of(name, found, range(len(split)), split.labels)
        n_tokens[name] = found.n_tokens
    return rows, n_tokens


def fit_rows(
    base: Bundle,
    goal: Goal,
    plan: Hyperparameters,
    splits: tuple[TokenizedRows, TokenizedRows],
    context: TrainingContext,
    folder: Path | None = None,
) -> Fitted:
    """Train a new classifier on the first split, validate on the second; checkpoints go to ``folder`` or the context's.

    Each window of a long text is learned where the encoder is trained; a head alone, and validation, have the first.
    """
    model = _new_classifier(base, goal, plan, context)
    has_bias = goal.task == Task.REGRESSION and has_last_bias(model, splits[0].input_ids)
    objective = objective_of(
        goal.task, splits[0].subset_labels, len(goal.labels), plan.class_weights, has_bias=has_bias
    )
    if splits[0].soft is not None and plan.teacher_temperature is not None:
        objective = at_temperature(objective, plan.teacher_temperature)
    fit_context = dataclasses.replace(context, folder=folder or context.folder)
    if not plan.trains_encoder and uses_cls_only(model, splits[0].input_ids):
        precision = precision_for(len(splits[0].labels), context.precision)
        stored = [
            StoredRows(_states(model, plan, rows, precision, context), rows.targets(objective)).select(
                rows.positions
            )
            for rows in splits
        ]
        fitted = fit_head(model, (stored[0], stored[1]), plan, objective, fit_context)
        return dataclasses.replace(fitted, precision=precision, standard=objective.standard)
    usual = Tokenizer(base).padding(context.padding_mode).types
    learned, watched = (rows.select(rows.positions, rows.name) for rows in splits)
    if plan.trains_encoder:
        learned = learned.by_window()
    train, evaluation = (
        dataset_of(rows.input_ids, rows.targets(objective), rows.types(usual)) for rows in (learned, watched)
    )
    fitted = fit(model, load_tokenizer(base), (train, evaluation), plan, objective, fit_context)
    return dataclasses.replace(fitted, standard=objective.standard)


def row_states(
    base: Bundle, goal: Goal, plan: Hyperparameters, rows: TokenizedRows, context: TrainingContext
) -> NDArray[np.float32] | None:
    """``[CLS]`` states ``[n, H]`` float32 of the rows; ``None`` for a base whose head has another input."""
    model = _new_classifier(base, goal, plan, context)
    if not uses_cls_only(model, rows.input_ids):
        return None
    return _states(model, plan, rows, precision_for(len(rows.labels), context.precision), context)


def _states(
    model: Any, plan: Hyperparameters, rows: TokenizedRows, precision: str, context: TrainingContext
) -> NDArray[np.float32]:
    name = f"{rows.name}-{plan.pooling}"
    return cls_states_of(model, rows.input_ids, name, context, precision, rows.token_type_ids)


def _new_classifier(base: Bundle, goal: Goal, plan: Hyperparameters, context: TrainingContext) -> Any:
    from transformers import set_seed

    set_seed(plan.seed)  # before the new head gets its random weights
    return load_classifier(base, goal, plan, context.device)
