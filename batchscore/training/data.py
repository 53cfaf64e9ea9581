"""Load labelled texts from files, folders, the sample reviews or a hub data set into a training and an evaluation split.

Local files are read by the scorer's readers, which guess no types and lose no line breaks, and become
``datasets.Dataset``. Shuffling and selecting use ``datasets``, so that a seed picks the same rows as in a notebook. Only a
hub data set uses the network.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore import samples
from batchscore.config import ReadSettings
from batchscore.errors import DataError, NoInputError, printable
from batchscore.formats.column_choice import choose_columns, refuse_named
from batchscore.formats.format import format_of
from batchscore.formats.inputs import FoundFile, find_files
from batchscore.formats.paths import nested_columns
from batchscore.formats.reading import describe, header_advice, read
from batchscore.formats.registry import format_of_name
from batchscore.formats.text_keys import text_key
from batchscore.model.given import label_column_names
from batchscore.model.labels import GivenLabels, LabelNames, LabelValues, is_missing, label_key, named_key
from batchscore.records import UNLABELLED, Column, ColumnChoice, Layout, Rows, Status, Task, status_of
from batchscore.training.corrections import corrected
from batchscore.training.label_reading import TASKS, Reading, label_columns
from batchscore.training.objectives import strata_of
from batchscore.training.splits import Goal, Split, TrainingData, held_out_groups, stratified
from batchscore.training.untold import readings_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from batchscore.records import GivenText, Text
    from batchscore.training.settings import TrainSettings

_LOG = logging.getLogger(__name__)
BUILTIN = "builtin"
EVAL_SHARE = 0.2
_HUB_ROWS = 10_000
"""Of a data set from the hub, read at once."""
_EVAL_NAMES = ("test", "validation", "valid", "val", "dev", "eval")


@dataclasses.dataclass(slots=True)
class _RawRows:
    """The raw rows of one split."""

    texts: list[GivenText] = dataclasses.field(default_factory=list)
    labels: list[Any] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    unreadable: int = 0
    places: list[str] = dataclasses.field(default_factory=list)
    """The origin of each row: ``reviews.csv:17`` (0-based); empty if rows are numbered consecutively."""
    groups: list[str | None] = dataclasses.field(default_factory=list)
    """The value of the group column, if one was asked for."""
    column: str = ""
    """The label column."""

    def place(self, row: int) -> str:
        """The origin of a row."""
        return self.places[row] if self.places else str(row)


def load_data(settings: TrainSettings, taught: Goal | None = None) -> TrainingData:
    """Read, name the labels, drop and count unusable rows, split, shuffle, limit; ``taught`` is a teacher's goal for rows without labels.

    Raises:
        DataError: no usable rows, no label column, fewer than two labels.
        NoInputError: the data do not exist.
        UsageError: a label name for a value that does not occur.
    """
    given = _read(settings.data, settings)
    train, evaluation, source = given["train"], given.get("test"), "the data's own test rows"
    if settings.eval_data is not None:
        others = _read(settings.eval_data, settings)
        evaluation, source = others.get("test") or others["train"], printable(settings.eval_data)
    readings = readings_of(train, evaluation, settings, taught)
    usable, without = _usable(train, readings.train, settings.data, settings.missing_pair)
    left_out = {"train": without, "evaluation": {}}
    if evaluation is None:
        first, second = _split(usable, train.groups, readings.goal.task, settings.seed)
        evaluation, source = train, readings.fifth_of(settings.data)
    else:
        where, reading = settings.eval_data or settings.data, readings.evaluation
        second, left_out["evaluation"] = _usable(evaluation, reading, where, settings.missing_pair)
        first = usable
    splits = _shuffled(first, train, settings), _shuffled(second, evaluation, settings)
    data = TrainingData(readings.goal, *splits, source, left_out, untold=readings.untold)
    return data if settings.corrections is None else corrected(data, settings.corrections, _texts(second))


def load_for_labels(settings: TrainSettings, names: LabelNames) -> tuple[Split, dict[str, int]]:
    """All rows of ``settings.data`` whose label is one of an existing model's, and the number left out by reason.

    Raises:
        DataError: no usable rows, no label column, or values that are none of the labels.
        NoInputError: the data do not exist.
    """
    given = _read(settings.data, settings).values()
    texts = [text for split in given for text in split.texts]
    labels = [label for split in given for label in split.labels]
    values = LabelValues(names)
    values.update(labels)
    meaning = values.meaning()
    if meaning is None:
        column = settings.label_column or "label"
        problem = values.problem(column).partition("; or name another")[0]
        raise DataError(f"{printable(settings.data)}: {problem}; or name another --label-column.")
    indices = GivenLabels(names, meaning.reading).indices(labels, len(labels)).tolist()
    left_out: collections.Counter[str] = collections.Counter()
    kept = []
    for row, (text, index) in enumerate(zip(texts, indices, strict=True)):
        status = status_of(text)
        if status != Status.OK or index < 0:
            unlabelled = "null_label" if index == UNLABELLED else "unknown_label"
            left_out[unlabelled if status == Status.OK else status.text] += 1
        else:
            kept.append(row)
    if unreadable := sum(split.unreadable for split in given):
        left_out["unreadable"] = unreadable
    if not kept:
        raise DataError(f"{printable(settings.data)} has no row with a text and a label of the model.")
    return Split([str(texts[row]) for row in kept], [indices[row] for row in kept]), dict(
        sorted(left_out.items())
    )


def text_batches(data: str, settings: TrainSettings) -> Iterator[Sequence[GivenText]]:
    """The text of each row of ``data``, of all its files and splits; missing and empty ones too, labels are not looked at.

    Raises:
        DataError: no column of texts.
        NoInputError: the data do not exist.
    """
    plain = dataclasses.replace(settings, label_column="", label_columns=(), group_column=None)
    if data == BUILTIN:
        yield from (_samples(split).texts for split in ("train", "test"))
        return
    if not _is_local(data):
        for split in _hub_splits(data).values():
            for start in range(0, len(split), _HUB_ROWS):
                some = split.select(range(start, min(start + _HUB_ROWS, len(split))))
                yield _hub_split(data, some, plain).texts
        return
    for file, layout, columns in _described(find_files([data], None, settings.output), plain):
        for rows in read(file.source, layout, columns, _read_settings(plain)):
            yield rows.given_texts


def _is_local(data: str) -> bool:
    return data != BUILTIN and (Path(data).exists() or not _may_be_hub_name(data))


def _read(data: str, settings: TrainSettings) -> dict[str, _RawRows]:
    """The rows of ``data`` by split: ``train``, and ``test`` if the data have one."""
    if data == BUILTIN:
        return {split: _samples(split) for split in ("train", "test")}
    return _local(data, settings) if _is_local(data) else _from_hub(data, settings)


def _may_be_hub_name(data: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", data)) and format_of_name(data) is None


def _samples(split: str) -> _RawRows:
    rows = samples.load(split)
    return _RawRows(
        [row["text"] for row in rows],
        [row["label"] for row in rows],
        places=[row["id"] for row in rows],
    )


def _local(data: str, settings: TrainSettings) -> dict[str, _RawRows]:
    files = find_files([data], None, settings.output)
    groups: dict[str, list[FoundFile]] = collections.defaultdict(list)
    for file in files:
        groups[_split_of(file.source.path, Path(data))].append(file)
    held_out = next((name for name in _EVAL_NAMES if name in groups), "")
    train = "train" if "train" in groups else ""
    if not held_out or train not in groups:
        return {"train": _read_files(files, settings)}
    for name in sorted(groups.keys() - {train, held_out}):
        _LOG.warning(
            "%s: %d files are neither train* nor %s* and are not used", data, len(groups[name]), held_out
        )
    return {"train": _read_files(groups[train], settings), "test": _read_files(groups[held_out], settings)}


def _split_of(path: Path, data: Path) -> str:
    """The split named by a file (or by its folder below ``data``), or ``""``."""
    name = path.relative_to(data).parts[0].lower() if data.is_dir() else ""
    return next((split for split in ("train", *_EVAL_NAMES) if name.startswith(split)), "")


def _read_files(files: Sequence[FoundFile], settings: TrainSettings) -> _RawRows:
    given = _RawRows()
    for file, layout, columns in _described(files, settings):
        given.column = given.column or columns.label or ""
        names = tuple(layout.details.get("class_names", {}).get(columns.label, ()))
        _assert_same_classes(given, names, file.source.path)
        for rows in read(file.source, layout, columns, _read_settings(settings)):
            given.texts += rows.given_texts
            given.labels += [_named(value, names) for value in rows.labels or [None] * len(rows.row)]
            given.unreadable += len(rows.rejects)
            given.places += [f"{file.source.path.name}:{row}" for row in rows.row]
            if settings.group_column is not None:
                given.groups += _groups(rows, file, layout, settings.group_column)
    return given


def _described(
    files: Sequence[FoundFile], settings: TrainSettings
) -> Iterator[tuple[FoundFile, Layout, ColumnChoice]]:
    """Files that have columns, and which of them are read."""
    how = _read_settings(settings)
    for file in files:
        layout = describe(file.source, how)
        if layout.columns:
            advice = header_advice(file.source, layout, how)
            yield file, layout, _columns(layout, settings, file.source.path, advice)


def _read_settings(settings: TrainSettings) -> ReadSettings:
    return dataclasses.replace(
        settings.read,
        text_column=settings.text_column,
        text_pair_column=settings.text_pair_column,
        label_column=settings.label_column,
        label_columns=settings.label_columns,
    )


def _columns(
    layout: Layout, settings: TrainSettings, path: Path, advice: Callable[[], str] = str
) -> ColumnChoice:
    """The columns of the text and of what was given.

    Raises:
        DataError: one of them is missing.
    """
    task, read_settings = TASKS.get(settings.task, Task.SINGLE_LABEL), _read_settings(settings)
    wanted = label_columns(settings)
    columns = choose_columns(
        layout, read_settings, path, not wanted, advice=advice, label_names=label_column_names(task)
    )
    for name in wanted:
        found = [c for c in (*layout.columns, *nested_columns(layout)) if c.name == name]
        refuse_named("label", name, found, layout, path, "--label-columns")
    if not wanted and columns.label is None and settings.label_column != "" and not settings.teachers:
        raise _no_label(path, layout)
    return dataclasses.replace(columns, labels=wanted)


def _assert_same_classes(given: _RawRows, names: tuple[str, ...], where: object) -> None:
    """Record a file's class names, which all files of a split must share: else a number would be ambiguous."""
    if given.labels and (given.class_names or ()) != names:
        raise DataError(
            f"{printable(where)}: its label numbers have other names than those of the files before it "
            f"({printable(', '.join(names)) or 'none'}). Train on files of one data set."
        )
    given.class_names = names or None


def _named(value: Any, names: tuple[str, ...]) -> Any:
    """A label value by its class name in the file; -1 is no label, as in ``datasets``."""
    if isinstance(value, list | tuple) and names:
        return [_named(each, names) for each in value]
    if not names or is_missing(value):
        return value
    key = label_key(value)
    return named_key(key, names) or None if key == "-1" or key.isdecimal() else value


def _groups(rows: Rows, file: FoundFile, layout: Layout, name: str) -> list[str | None]:
    """The group of each row, as text."""
    _assert_column(name, layout, file.source.path)
    return format_of(file.source.format).texts_of_rows(rows, layout, [name])[name]


def _assert_column(name: str, layout: Layout, where: object) -> None:
    if name not in (column.name for column in layout.columns):
        names = printable(", ".join(column.name for column in layout.columns[:40]))
        raise DataError(
            f"{printable(where)}: no column {printable(name)} (--group-column). Columns: {names}."
        )


def _no_label(where: object, layout: Layout) -> DataError:
    names = printable(", ".join(column.name for column in layout.columns[:40]))
    return DataError(
        f"{printable(where)}: no label column by name. Name it with --label-column. Columns: {names}."
    )


def _from_hub(data: str, settings: TrainSettings) -> dict[str, _RawRows]:
    splits = _hub_splits(data)
    names = list(splits)
    held_out = next((name for name in _EVAL_NAMES if name in names), None)
    train = "train" if "train" in names else names[0]
    wanted = {"train": train} | ({"test": held_out} if held_out and held_out != train else {})
    return {split: _hub_split(data, splits[name], settings) for split, name in wanted.items()}


def _hub_splits(data: str) -> DatasetDict:
    import datasets

    try:
        return datasets.load_dataset(data)
    except (OSError, ValueError, RuntimeError) as error:
        raise NoInputError(
            f"There is no file or folder {printable(data)}, and no data set of that name could be fetched from the hub "
            f"({printable(str(error).partition(chr(10))[0])}). Check the path, or fetch it where there is a network."
        ) from error


def _hub_split(data: str, split: Dataset, settings: TrainSettings) -> _RawRows:
    layout = Layout(tuple(Column(name, _kind(feature)) for name, feature in split.features.items()))
    columns = _columns(layout, settings, Path(data))
    names = _class_names(split.features, columns.label)
    if columns.labels:
        flags = [[None if value is None else str(value) for value in split[name]] for name in columns.labels]
        labels: list[Any] = list(zip(*flags, strict=True))
    elif columns.label is None:
        labels = [None] * len(split)
    else:
        labels = [_named(value, names) for value in split[columns.label]]
    texts = [list(split[name]) for name in columns.texts]
    whole = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
    given = _RawRows(whole, labels, names or None, column=columns.label or "")
    if settings.group_column is not None:
        _assert_column(settings.group_column, layout, data)
        values = list(split[settings.group_column])
        given.groups = [None if value is None else str(value) for value in values]
    return given


def _class_names(features: Any, column: str | None) -> tuple[str, ...]:
    """The class names of a column, or of the items of its lists."""
    feature = features[column] if column else None
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    return tuple(names or ())


def _kind(feature: Any) -> str:
    dtype = str(getattr(feature, "dtype", ""))
    if dtype.endswith("string"):
        return "string"
    return "boolean" if dtype == "bool" else "integer" if "int" in dtype else "other"


def _usable(
    given: _RawRows, reading: Reading, where: str, missing_pair: str
) -> tuple[Dataset, dict[str, int]]:
    """The rows with a text, or two, and a known label, and the number of rows left out by reason."""
    import datasets

    left_out: collections.Counter[str] = collections.Counter()
    texts: list[list[str]] = []
    labels, rows = [], []
    for row, (text, value) in enumerate(zip(given.texts, given.labels, strict=True)):
        label = None if reading.is_missing(value) else reading.label(value)
        status = status_of(text, missing_pair)
        if status != Status.OK or label is None:
            unlabelled = "null_label" if reading.is_missing(value) else "unknown_label"
            left_out[unlabelled if status == Status.OK else status.text] += 1
            continue
        texts.append([each or "" for each in (text if isinstance(text, tuple) else (text,))])
        labels.append(label)
        rows.append(row)
    if given.unreadable:
        left_out["unreadable"] = given.unreadable
    if not texts:
        reasons = ", ".join(f"{name} {count}" for name, count in left_out.items()) or "it is empty"
        raise DataError(f"{printable(where)} has no row with a text and a known label ({reasons}).")
    features = datasets.Features(
        {
            "texts": datasets.Sequence(datasets.Value("large_string")),
            "label": _feature(reading.goal),
            "row": datasets.Value("int64"),
        }
    )
    usable = datasets.Dataset.from_dict({"texts": texts, "label": labels, "row": rows}, features=features)
    return usable, dict(sorted(left_out.items()))


def _texts(rows: Dataset) -> list[Text]:
    """The text of each row, or its two texts."""
    return [texts[0] if len(texts) == 1 else (texts[0], texts[1]) for texts in rows["texts"]]


def _feature(goal: Goal) -> Any:
    """The feature of ``datasets`` for the labels of a task."""
    import datasets

    if goal.task == Task.MULTI_LABEL:
        return datasets.List(datasets.Value("int8"))
    return (
        datasets.Value("float64")
        if goal.task == Task.REGRESSION
        else datasets.ClassLabel(names=list(goal.labels))
    )


def _split(rows: Dataset, groups: Sequence[str | None], task: Task, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a random fifth of the rows of each label; rows of one group stay together.

    Without groups, duplicates of a text stay together too: if one of them is trained on, all are.
    """
    strata = strata_of(task, list(rows["label"]))
    by_label = stratified(strata, EVAL_SHARE, seed)
    held_out = held_out_groups(list(rows["row"]), groups, strata, EVAL_SHARE, seed) if groups else by_label
    kept = sorted(set(range(len(rows))) - set(held_out))
    if not groups:
        texts = [text_key(text) for text in _texts(rows)]
        trained_on = {texts[row] for row in kept}
        held_out = [row for row in held_out if texts[row] not in trained_on] or held_out
        kept = sorted(set(range(len(rows))) - set(held_out))
    if not kept or not held_out:
        raise DataError("The groups of --group-column are too few to cut a fifth of the rows off.")
    return rows.select(kept), rows.select(held_out)


def _shuffled(rows: Dataset, given: _RawRows, settings: TrainSettings) -> Split:
    """Shuffle, then take the first ``limit`` rows."""
    count = len(rows) if settings.limit is None else min(settings.limit, len(rows))
    picked = rows.shuffle(seed=settings.seed).select(range(count))
    found = list(picked["row"])
    labels = list(picked["label"])
    return Split(
        _texts(picked),
        [tuple(label) if isinstance(label, list) else label for label in labels],
        [given.place(row) for row in found],
        [given.groups[row] for row in found] if given.groups else [],
    )
