"""Which column is the text, which the label and which the id: by name, never by elimination.

Names given on the command line win. A column that is merely the only one left may be suggested, but is not chosen.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchscore.errors import DataError, UsageError, printable
from batchscore.formats import known_names
from batchscore.formats.known_names import name_key
from batchscore.formats.paths import nested_columns
from batchscore.records import Column, ColumnChoice, Layout

if TYPE_CHECKING:
    from batchscore.config import ReadSettings

_NAMES: dict[str, tuple[Collection[str], ...]] = {
    "text": (known_names.TEXT, known_names.LESSER_TEXT),
    "label": (known_names.LABEL,),
    "id": (known_names.ID,),
}
"""Role → sets of names; the first set with a name that occurs counts. A second text is never found by its name."""
_TEXT_KINDS = {"string", "null", "mixed"}
_COUNTED = {"integer", "number", "boolean", "time"}
"""Kinds that are not the text even with a text's name: ``content`` may be a length or a date."""
_LISTED = 40
_LONGEST_NAME = 60
_MOST_WORDS = 6


def choose_columns(
    layout: Layout,
    settings: ReadSettings,
    path: Path,
    use_labels: bool = True,
    advice: Callable[[], str] = str,
    label_names: Collection[str] = (),
) -> ColumnChoice:
    """Find the text, label and id columns by name and type; names in the settings win.

    ``advice`` returns what else may be wrong with a file without a text column; ``label_names`` are names of a label column
    besides the usual ones.

    Raises:
        DataError: no text column, several candidates, or a named column that is missing; the message lists the columns.
        UsageError: a column is given for two purposes, of which one is a text.
    """
    _refuse_one_for_two(settings)
    label = _pick("label", settings, layout, path, label_names) if use_labels else None
    identifier = _pick("id", settings, layout, path)
    pair = _pick("text-pair", settings, layout, path)
    text = _pick("text", settings, layout, path)
    if text is None:
        raise _no_text_error(layout, path, {label, identifier, pair}, advice())
    return ColumnChoice(text, label, identifier, pair)


def choose_given(
    layout: Layout, settings: ReadSettings, path: Path, label_names: Collection[str] = ()
) -> ColumnChoice:
    """Find the label and id columns of a file that need not have texts, as :func:`choose_columns` does.

    Raises:
        DataError: several candidates, or a named column that is missing.
    """
    identifier = _pick("id", settings, layout, path)
    return ColumnChoice("", _pick("label", settings, layout, path, label_names), identifier)


def _refuse_one_for_two(settings: ReadSettings) -> None:
    given = {
        "--text-column": settings.text_column,
        "--text-pair-column": settings.text_pair_column,
        "--label-column": settings.label_column,
    }
    for (one, name), (other, same) in itertools.combinations(given.items(), 2):
        if name and name == same:
            raise UsageError(f"{one} and {other} are both {printable(name)}.")


def _no_text_error(layout: Layout, path: Path, taken: set[str | None], advice: str) -> DataError:
    unusable = [c for c in layout.columns if _has_name_of("text", c) and c.kind not in _TEXT_KINDS]
    strings = [c.name for c in layout.columns if c.kind == "string" and c.name not in taken]
    inside = [c.name for c in nested_columns(layout) if c.kind == "string"]
    if unusable:
        what = (
            f"no text column: {_shown(unusable[0].name, layout)} is {_KINDS.get(unusable[0].kind, 'no text')}"
        )
    elif len(strings) > 1:
        what = f"{len(strings)} columns could be the text ({_joined(strings, layout)}), none by its name"
    else:
        only = ""
        if strings and _is_name(strings[0], layout):
            only = f" (the only one of strings is {printable(strings[0])})"
        what = f"no text column by name{only}"
    fields = f" Fields within: {_joined(inside, layout)}." if inside else ""
    return DataError(
        f"{printable(path)}: {what}. Name it with --text-column.{fields} Columns: {_listed(layout)}. {advice}".rstrip()
    )


_KINDS = {
    "object": "an object",
    "list": "a list",
    "binary": "binary",
    "integer": "a number",
    "number": "a number",
    "boolean": "true or false",
    "time": "a date or a time",
}


def _pick(
    role: str, settings: ReadSettings, layout: Layout, path: Path, more_names: Collection[str] = ()
) -> str | None:
    given = {
        "text": settings.text_column,
        "text-pair": settings.text_pair_column,
        "label": settings.label_column,
        "id": settings.id_column,
    }
    wanted = given[role]
    if wanted == "":
        return None
    if wanted is not None:
        columns = [*layout.columns, *nested_columns(layout)]
        refuse_named(role, wanted, [c for c in columns if c.name == wanted], layout, path)
        return wanted
    if role not in _NAMES:
        return None
    free = [c for c in layout.columns if c.name not in {*given.values(), *settings.label_columns}]
    known = [{*names, *more_names} for names in _NAMES[role]]
    found = next(filter(None, ([c for c in free if _may_be(role, c, names)] for names in known)), [])
    if len(found) > 1:
        raise DataError(
            f"{printable(path)}: {len(found)} columns could be the {role} ({_joined([c.name for c in found], layout)}). "
            f"Choose one with --{role}-column. Columns: {_listed(layout)}."
        )
    if found and role == "text" and found[0].kind not in _TEXT_KINDS:
        return None
    return found[0].name if found else None


def refuse_named(
    role: str, wanted: str, found: Sequence[Column], layout: Layout, path: Path, option: str = ""
) -> None:
    """Refuse a column named on the command line that is missing, occurs twice, or has an unsuitable type.

    Where no ``role`` is given the ``option`` takes whole columns, not fields within one.
    """
    option = option or f"--{role}-column"
    if not found:
        fields = nested_columns(layout) if role else ()
        names = [column.name for column in (*layout.columns, *fields)]
        close = difflib.get_close_matches(wanted, names, 1)
        hint = f" Did you mean {_shown(close[0], layout)}?" if close else ""
        raise DataError(
            f"{printable(path)} has no column {printable(wanted)} ({option}).{hint} Columns: {_listed(layout)}."
        )
    if len(found) > 1:
        raise DataError(
            f"{printable(path)} has {len(found)} columns named {printable(wanted)}. Rename one of them."
        )
    if role.startswith("text") and found[0].kind not in _TEXT_KINDS:
        raise DataError(
            f"{printable(path)}: the column {printable(wanted)} (--{role}-column) is {_KINDS.get(found[0].kind, 'no text')}. "
            f"Columns: {_listed(layout)}."
        )


def has_label_column(layout: Layout, more_names: Collection[str] = ()) -> bool:
    """Whether a column has a label's name, one of ``more_names`` included."""
    return any(
        _has_name_of("label", column) or name_key(column.name) in more_names for column in layout.columns
    )


def _has_name_of(role: str, column: Column) -> bool:
    return any(name_key(column.name) in names for names in _NAMES[role])


def _may_be(role: str, column: Column, names: Collection[str]) -> bool:
    """Whether a column may have a role by its name; an object or a list counts as text too, and is refused later."""
    return name_key(column.name) in names and (role != "text" or column.kind not in _COUNTED)


def _listed(layout: Layout) -> str:
    return _joined([c.name for c in layout.columns], layout, [f" ({c.kind})" for c in layout.columns])


def _joined(names: Sequence[str], layout: Layout, behind: Sequence[str] = ()) -> str:
    """Up to a readable number of names, each with its text in ``behind``; possible pieces of a review are only counted."""
    tails = behind or [""] * len(names)
    shown = [
        printable(name) + tail for name, tail in zip(names, tails, strict=True) if _is_name(name, layout)
    ]
    hidden = len(names) - len(shown)
    parts = [*shown[:_LISTED], *([f"{hidden} whose names may be text"] if hidden else [])]
    return ", ".join(parts) + (f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else "")


def _shown(name: str, layout: Layout) -> str:
    return printable(name) if _is_name(name, layout) else f"(a name of {len(name)} characters)"


def _is_name(name: str, layout: Layout) -> bool:
    """Whether a column's name may be shown; in a file without a header it may be a piece of a review."""
    is_short = len(name) <= _LONGEST_NAME and name.count(" ") < _MOST_WORDS
    return (layout.names_are_certain and is_short) or known_names.is_identifier(name)
