"""Values as text in CSV and JSON predictions."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Sequence
from typing import Any


def as_text(value: Any) -> str:
    """A value as text.

    ISO 8601 dates, base64 bytes, ``true`` and ``false``, decimals with all digits and no exponent, JSON for nested values,
    an empty text for null; a float is the shortest text that reads back equal (``nan``, ``inf``).
    """
    if type(value) is str:  # most are; a subclass goes the long way
        return value
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    plain = plain_json(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def plain_json(value: Any) -> Any:
    """An Arrow value as a JSON value; what JSON cannot represent becomes text (``"nan"`` and ``"inf"``, decimals)."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, decimal.Decimal) else str(value)


def distinct(names: Sequence[str]) -> list[str]:
    """Distinct column names: a second ``x`` becomes ``x_2``, or the next free number.

    >>> distinct(["x", "x", "x_2", ""])
    ['x', 'x_3', 'x_2', '']
    """
    taken, found = set(names), dict.fromkeys(names, 0)
    result: list[str] = []
    for name in names:
        found[name] += 1
        count, free = found[name], name
        while count > 1 and free in taken:
            free, count = f"{name}_{count}", count + 1
        taken.add(free)
        result.append(free)
    return result
