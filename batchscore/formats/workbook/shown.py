"""Numbers of cells as text: dates by their format, leading zeros that a format shows, else the shortest number.

A cell holds a floating point number, or its digits; what it means stands in its number format (ECMA-376, 18.8.30).
"""

from __future__ import annotations

import datetime
import decimal
import functools
import math
import re
from typing import NamedTuple

_BUILT_IN_DATES = {*range(14, 18), 27, 30, 31, 36, *range(50, 53), *range(54, 59)}
_BUILT_IN_TIMES = {18, 19, 20, 21, 32, 33, 34, 35, 45, 47, 53}
_BUILT_IN_BOTH = {22}
_BUILT_IN_ELAPSED = {46}
_TOKEN = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|[_*].|.', re.DOTALL)
_ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
_DIGITS = re.compile(r"[+-]?\d+")
_PER_DAY = 86_400_000
"""Milliseconds: as finely as Excel shows a time."""
_AFTER_1900 = datetime.datetime(1899, 12, 30)
_EARLY_1900 = datetime.datetime(1899, 12, 31)
_FROM_1904 = datetime.datetime(1904, 1, 1)
_NO_DAY = 60
"""1900-02-29, which Excel takes for a day."""
_LAST_DAY = 2_958_466
_MOST_DIGITS = 400
_PLAIN = 1e21
"""Below this a whole number is written without an exponent."""
PRECISE = 15
"""Significant digits of a number that Excel keeps."""


class Meaning(NamedTuple):
    """What a number format says: whether it shows a day, a time of day, time elapsed, or zeros and letters."""

    has_day: bool = False
    has_time: bool = False
    is_elapsed: bool = False
    picture: tuple[str, ...] = ()
    """Literal texts and digits (``"0"``) of a format that shows leading zeros."""


@functools.lru_cache(maxsize=4096)
def meaning_of(code: int | str) -> Meaning:
    """What a number format means; a built-in one is given by its number."""
    if isinstance(code, int):
        return Meaning(
            code in _BUILT_IN_DATES or code in _BUILT_IN_BOTH,
            code in _BUILT_IN_TIMES or code in _BUILT_IN_BOTH,
            code in _BUILT_IN_ELAPSED,
        )
    tokens = _first_section(code)
    if any(_ELAPSED.fullmatch(token) for token in tokens):
        return Meaning(is_elapsed=True)
    letters = "".join(token.lower() for token in tokens if len(token) == 1)
    if letters == "general":
        return Meaning()
    has_time = "h" in letters or "s" in letters
    has_day = "y" in letters or "d" in letters or ("m" in letters and not has_time)
    if has_day or has_time:
        return Meaning(has_day, has_time)
    return Meaning(picture=_picture(tokens))


def _first_section(code: str) -> list[str]:
    tokens = _TOKEN.findall(code)
    return tokens[: tokens.index(";")] if ";" in tokens else tokens


def _picture(tokens: list[str]) -> tuple[str, ...]:
    """The literals and digits of a format such as ``00000`` or ``000-00-0000``; nothing if it shows no leading zeros."""
    found = []
    for piece in tokens:
        if len(piece) == 1 and piece in "0-/ ()+":
            found.append(piece)
        elif piece.startswith('"'):
            found.append(piece[1:-1])
        elif piece.startswith("\\"):
            found.append(piece[1:])
        elif not piece.startswith("["):  # a colour or a language
            return ()
    return tuple(found) if found.count("0") > 1 and '"0"' not in tokens and "\\0" not in tokens else ()


def shown(raw: str, code: int | str, *, from_1904: bool = False) -> str:
    """A number as text.

    >>> shown("7.0", 0), shown("0.10000000000000001", 0), shown("1.5E+3", 0)
    ('7', '0.1', '1500')
    >>> shown("46353", "yyyy-mm-dd"), shown("46353.5", 22), shown("0.25", "h:mm"), shown("123", "00000")
    ('2026-11-27', '2026-11-27T12:00:00', '06:00:00', '00123')

    Raises:
        EOFError: it is no finite number.
    """
    meaning = meaning_of(code)
    if meaning.is_elapsed:
        return _duration(_number(raw))
    if meaning.has_day or meaning.has_time:
        return _moment(_number(raw), meaning, from_1904=from_1904) or plain(raw)
    text = plain(raw)
    return _zeros(text, meaning.picture) if meaning.picture and text.isdecimal() else text


def plain(raw: str) -> str:
    """The shortest text of a number that reads back equal; digits stay as they are."""
    if _DIGITS.fullmatch(raw) and len(raw) <= _MOST_DIGITS:
        return str(int(raw))
    number = _number(raw)
    if number.is_integer() and abs(number) < _PLAIN:
        return f"{decimal.Decimal(repr(number)):.0f}" if number else "0"
    return repr(number)


def is_rounded(text: str) -> bool:
    """Whether a number as text has more digits than Excel keeps, with nothing but zeros behind them."""
    digits = text.lstrip("-")
    return len(digits) > PRECISE and digits.isdecimal() and not digits[PRECISE:].strip("0")


def _number(raw: str) -> float:
    try:
        number = float(raw)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in raw:
        raise EOFError("a number in it is none")
    return number


def _moment(number: float, meaning: Meaning, *, from_1904: bool) -> str:
    """A day, a time or both, in ISO 8601; empty if there is no such day."""
    milliseconds = round(number * _PER_DAY)
    if milliseconds < 0 or number >= _LAST_DAY:
        return ""
    part = datetime.timedelta(milliseconds=milliseconds % _PER_DAY)
    days = milliseconds // _PER_DAY
    if not days and meaning.has_time and not meaning.has_day:
        return (_FROM_1904 + part).time().isoformat()
    if days in (0, _NO_DAY) and not from_1904:
        return ""
    start = _FROM_1904 if from_1904 else _AFTER_1900 if days > _NO_DAY else _EARLY_1900
    try:
        day = start + datetime.timedelta(days=days)
    except OverflowError:
        return ""
    return (day + part).isoformat() if part or meaning.has_time else day.date().isoformat()


def _duration(number: float) -> str:
    milliseconds = round(number * _PER_DAY)
    seconds, rest = divmod(abs(milliseconds), 1000)
    fraction = f".{rest:03}".rstrip("0") if rest else ""
    return f"{'-' if milliseconds < 0 else ''}PT{seconds}{fraction}S"


def _zeros(digits: str, picture: tuple[str, ...]) -> str:
    """Digits within a picture, filled from the right; what does not fit stands at its first digit."""
    left = digits.zfill(picture.count("0"))
    found: list[str] = []
    places = picture.count("0")
    for piece in reversed(picture):
        if piece != "0":
            found.append(piece)
            continue
        places -= 1
        take = left if not places else left[-1:]
        left = left[: len(left) - len(take)]
        found.append(take)
    return "".join(reversed(found))
