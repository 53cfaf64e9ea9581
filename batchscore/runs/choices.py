"""Which columns of a run's inputs were chosen, in words: nobody should have to guess what was scored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchscore.errors import printable
from batchscore.model.labels import MEANINGLESS, NO_LABEL
from batchscore.runs.folder import FACTS

if TYPE_CHECKING:
    from batchscore.formats.output_columns import OutputColumns
    from batchscore.records import ColumnChoice, InputFile
    from batchscore.runs.planning import Plan

_MAX_FILES = 5
_MAX_VALUES = 8
_MAX_CHARS = 40


def choice_of(file: InputFile) -> str:
    """The text, label and id columns of a file, of two texts both, and what each label value means.

    ``text in review, label in stars (1 = NEGATIVE, 5 = POSITIVE), no id``
    """
    columns = file.columns
    if not columns.text:
        return "no columns"
    label = f"{_label_words(columns)}{meaning_of(file)}" if columns.given else "no label"
    identifier = f"id in {_short(columns.id)}" if columns.id else "no id"
    second = f", second text in {_short(columns.text_pair)}" if columns.text_pair else ""
    sheet = (file.layout.details.get("dialect") or {}).get("sheet")
    where = f", sheet {_short(sheet)}" if sheet else ""
    return f"text in {_short(columns.text)}{second}, {label}, {identifier}{where}"


def _label_words(columns: ColumnChoice) -> str:
    return (
        f"label in {_short(columns.label)}" if columns.label else f"labels in {len(columns.labels)} columns"
    )


def meaning_of(file: InputFile) -> str:
    """What the values in a label column mean, in brackets; empty if there are none."""
    said = [
        f"{_short(value)} = {_short(label) if label != NO_LABEL else 'no label'}"
        for value, label in list(file.label_values.items())[:_MAX_VALUES]
    ]
    more = len(file.label_values) - len(said)
    return f" ({', '.join(said)}{f' and {more} more' if more else ''})" if said else ""


def choices_of(plan: Plan) -> Iterator[str]:
    """One line per choice; files with the same choice share a line."""
    names: dict[str, list[str]] = {}
    for file in plan.files:
        names.setdefault(choice_of(file), []).append(file.name)
    for choice, files in list(names.items())[:_MAX_FILES]:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        yield f"{printable(files[0])}{more}: {choice}"
    if len(names) > _MAX_FILES:
        yield f"{len(names) - _MAX_FILES} more kinds of files: {FACTS} has them all"


def left_out(plan: Plan, columns: OutputColumns) -> str | None:
    """What a later run that compares with this one will miss, because predictions do not hold it; None if nothing."""
    files = [file for file in plan.files if file.columns.text]
    lacks_ids = any(file.columns.id and columns.found(file.columns.id) is None for file in files)
    lacks_texts = any(columns.found(text) is None for file in files for text in file.columns.texts)
    has_ids = all(file.columns.id for file in files) and not lacks_ids
    if has_ids:
        return None
    if columns.partition is not None:
        return "predictions are divided into folders and hold no ids: no later run can have this one as its --baseline"
    if not (lacks_ids or lacks_texts):
        return None
    rest = ", and only of files that have not changed" if lacks_texts else ""
    what = "neither ids nor texts" if lacks_texts else "no ids"
    return f"predictions hold {what}: a later run with this one as its --baseline can match rows by file and place alone{rest}"


def label_warnings(plan: Plan, *, uses_labels: bool) -> Iterator[str]:
    """Warnings about given labels: values that the model does not know, and labels that are not used."""
    unknown = [file for file in plan.files if file.unknown_labels]
    for file in unknown[:_MAX_FILES]:
        rows = sum(file.unknown_labels.values())
        values = sorted(file.unknown_labels.items(), key=lambda pair: -pair[1])
        said = ", ".join(f"{_short(value)} ({count:,})" for value, count in values[:_MAX_VALUES])
        more = f" and {len(values) - _MAX_VALUES} more values" if len(values) > _MAX_VALUES else ""
        yield (
            f"{printable(file.name)}: {rows:,} rows have a label that the model does not know: {said}{more}. Say what they "
            "mean with --label-map GIVEN=LABEL (nothing behind the =: no label)"
        )
    if len(unknown) > _MAX_FILES:
        yield f"{len(unknown) - _MAX_FILES} more files have labels that the model does not know: {FACTS} has them"
    if reason := unused_labels(plan, uses_labels=uses_labels):
        yield reason


def unused_labels(plan: Plan, *, uses_labels: bool) -> str | None:
    """Why given labels are not compared although a column looks like some; None if they are, or there are none."""
    if uses_labels or not any(file.has_label_column for file in plan.files):
        return None
    return f"given labels are not looked at: {MEANINGLESS}"


def _short(text: str | None) -> str:
    said = printable(text)
    return said if len(said) <= _MAX_CHARS and said.count(" ") < 3 else f"({len(said)} characters)"
