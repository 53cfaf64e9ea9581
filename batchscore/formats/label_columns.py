"""Which columns are the labels themselves, each of 0 and 1: by their names, or as ``--label-columns`` says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats.column_choice import refuse_named
from batchscore.formats.known_names import name_key
from batchscore.formats.paths import nested_columns
from batchscore.records import ColumnChoice, Layout

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_FLAG_KINDS = frozenset({"integer", "number", "boolean", "string", "null", "mixed"})
_LISTED = 8


def choose_label_columns(
    columns: ColumnChoice,
    layout: Layout,
    path: Path,
    settings: ReadSettings,
    labels: Sequence[str],
    label_map: Mapping[str, str],
) -> ColumnChoice:
    """``columns`` with a column for each label, if they are named or all found; a column's name may be in ``label_map``.

    Raises:
        DataError: named columns that are missing or leave a label out, or columns of labels besides a label column.
        UsageError: a name that is no label's, two columns for one label, or a label column named as well.
    """
    names = _names(labels, label_map)
    if settings.label_columns:
        if settings.label_column:
            raise UsageError(
                "--label-column and --label-columns are two ways to say where labels are. Leave one out."
            )
        found = _named(layout, path, settings.label_columns, labels, names)
        return dataclasses.replace(columns, label=None, labels=found)
    if settings.label_column is not None:  # named, or none is wanted
        return columns
    free = {columns.text, columns.label, columns.id}
    candidates = [c.name for c in layout.columns if c.name not in free and c.kind in _FLAG_KINDS]
    by_label: dict[str, list[str]] = {}
    for name in candidates:
        if (label := names.get(name_key(name))) is not None:
            by_label.setdefault(label, []).append(name)
    if set(by_label) != set(labels) or any(len(each) > 1 for each in by_label.values()):
        return columns
    if columns.label is not None:
        raise DataError(
            f"{printable(path)}: the labels may be in the column {printable(columns.label)}, or in a column for each "
            f"({_listed([by_label[label][0] for label in labels])}). Choose: --label-column {printable(columns.label)} or "
            f"--label-columns {','.join(printable(by_label[label][0]) for label in labels[:_LISTED])}"
        )
    return dataclasses.replace(columns, labels=tuple(by_label[label][0] for label in labels))


def _names(labels: Sequence[str], label_map: Mapping[str, str]) -> dict[str, str]:
    """Key of a column's name → label; a name that two labels share stands for neither."""
    keys = [name_key(label) for label in labels]
    own = {key: label for key, label in zip(keys, labels, strict=True) if keys.count(key) == 1}
    by_key = {label.casefold(): label for label in labels}
    mapped = {name_key(given): by_key.get(label.casefold(), "") for given, label in label_map.items()}
    return {**own, **{key: label for key, label in mapped.items() if key and label}}


def _named(
    layout: Layout, path: Path, wanted: Sequence[str], labels: Sequence[str], names: Mapping[str, str]
) -> tuple[str, ...]:
    found: dict[str, str] = {}
    columns = [*layout.columns, *nested_columns(layout)]
    for name in wanted:
        refuse_named("label", name, [c for c in columns if c.name == name], layout, path, "--label-columns")
        label = names.get(name_key(name)) or names.get(name_key(name.rpartition(".")[2]))
        if label is None:
            raise UsageError(
                f"--label-columns: {printable(name)} is no label of the model ({_listed(labels)}). Say whose column it is: "
                f"--label-map {printable(name)}=LABEL"
            )
        if found.setdefault(label, name) != name:
            raise UsageError(
                f"--label-columns: {printable(found[label])} and {printable(name)} are both the column of {printable(label)}."
            )
    if missing := [label for label in labels if label not in found]:
        raise DataError(
            f"{printable(path)}: --label-columns has no column for {_listed(missing)}. Name one for each label of the model."
        )
    return tuple(found[label] for label in labels)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(printable, names[:_LISTED])) + more
