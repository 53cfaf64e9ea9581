"""What stands below the names in a header: types, a rule, or a survey tool's second line; it must not be scored."""

from __future__ import annotations

import re
from collections.abc import Sequence

from batchscore.errors import DataError

_TYPE_WORDS = re.compile(
    r"(?i)(?:n?varchar|n?char|decimal|numeric)\(?[\d, ]*\)?|(?:tiny|small|big)?int(?:eger)?\d*|float\d*|double|number|real"
    r"|str(?:ing)?|text|object|category|bool(?:ean)?|date(?:time)?\d*|time(?:stamp)?|uuid|json"
)
_RULE = re.compile(r"\s*:?-{2,}:?\s*")


def refuse_more_header(fields: Sequence[str], place: str, n_fields: int, header_lines: int) -> None:
    """Refuse a first row, at ``place``, that belongs to a header of more lines than ``header_lines``.

    Raises:
        DataError: it holds the types of the columns, dashes, or what a survey tool writes below the names.
    """
    cells = [cell for cell in fields if cell.strip()]
    kinds = {
        "the types of the columns": all(map(_TYPE_WORDS.fullmatch, map(str.strip, cells))) and len(cells) > 1,
        "a rule": all(map(_RULE.fullmatch, cells)) and len(cells) > 1,
        "a second header of a survey tool": bool(cells) and cells[0].startswith('{"ImportId"'),
    }
    for what, holds in kinds.items():
        if holds and len(fields) == n_fields:
            raise DataError(
                f"{place} seems to be no row but {what}. If it belongs to the header: --header-lines {header_lines + 1}"
            )
