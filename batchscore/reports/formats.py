"""Numbers, dates and untrusted text formatted for a page.

Every string from outside (a label, a file name, a review) goes through :func:`shown` or :func:`review`, and then through
the template's escaping: it cannot run as code, and it cannot reverse or cover the text beside it.
"""

from __future__ import annotations

import datetime
import re
import unicodedata

from batchscore.errors import printable
from batchscore.evaluation.metrics import Unit

UNKNOWN = "–"  # noqa: RUF001 - a dash for an unknown value
NAME_LENGTH = 90
"""Maximum characters of a name (file, label, slice) on a page."""
TEXT_LENGTH = 600
SHOWN_OF_TEXT = 8 * TEXT_LENGTH + 1
"""Maximum characters of a review on a page."""
_KEPT_JOINERS = {"\u200c": "\u200c", "\u200d": "\u200d"}
"""Zero-width joiners, kept because emoji, Persian and Hindi need them."""
_MAX_MARKS = 4
"""Combining marks on one character; more would cover the lines above."""
_LARGE, _SMALL = 100, 1e-3


def visible(text: str) -> str:
    r"""Like :func:`batchscore.errors.printable`, but keeps joiners, makes every space a plain one, and at most four marks.

    >>> visible("a\u202eb\0")
    'a\\u202eb\\x00'
    """
    pieces: list[str] = []
    marks = 0
    for char in text:
        category = unicodedata.category(char)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if marks <= _MAX_MARKS:
            pieces.append(_KEPT_JOINERS.get(char) or (" " if category == "Zs" else printable(char)))
    return "".join(pieces)


def shown(value: object, length: int = NAME_LENGTH) -> str:
    """A name or value in one line, with the middle left out if it is long.

    >>> shown("a" * 50 + "z", length=9)
    'aaaa…aaaz'
    """
    text = str(value)
    if len(text) > 2 * length:  # cut before cleaning: most of a huge text is left out anyway
        text = text[:length] + text[-length:]
    text = visible(text)
    if not text.strip():
        return f'"{text}"'
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - tail - 1]}…{text[-tail:]}"


def review(text: object) -> str:
    """A review in one line: ``<br />`` and line ends as spaces, cut, control characters visible.

    >>> review("Good.<br /><br />Not great.")
    'Good. Not great.'
    """
    raw = str(text or "")
    plain = visible(re.sub(r"(<br\s*/?>|\s)+", " ", raw[: SHOWN_OF_TEXT - 1], flags=re.IGNORECASE).strip())
    is_whole = len(plain) <= TEXT_LENGTH and len(raw) < SHOWN_OF_TEXT
    return plain if is_whole else f"{plain[: TEXT_LENGTH - 1]}…"


def number(value: float | None) -> str:
    """A count with thousands separators, or a number to three decimals.

    >>> number(1234567), number(0.01234), number(0.0), number(0.00001), number(None)
    ('1,234,567', '0.012', '0', '<0.001', '–')
    """  # noqa: RUF002
    if value is None:
        return UNKNOWN
    if isinstance(value, int) or abs(value) >= _LARGE or value == 0:
        return f"{value:,.0f}"
    return "<0.001" if 0 < value < _SMALL / 2 else f"{value:.3f}"


def value_text(value: float | None) -> str:
    """A number in a unit of its own, to three digits that count.

    >>> value_text(0.52271), value_text(0.000371), value_text(12345.6), value_text(-2.0), value_text(4e-9), value_text(None)
    ('0.523', '0.000371', '12,346', '−2', '4e-09', '–')
    """  # noqa: RUF002
    if value is None:
        return UNKNOWN
    size = abs(value)
    text = f"{size:,.0f}" if 1000 <= size < 1e15 else f"{size:.3g}"
    return f"−{text}" if value < 0 and float(text.replace(",", "")) else text  # noqa: RUF001


def signed_value(value: float | None) -> str:
    """The change of such a number, with its sign.

    >>> signed_value(0.0123), signed_value(-2.5), signed_value(0.0)
    ('+0.0123', '−2.5', '0')
    """  # noqa: RUF002
    return f"+{value_text(value)}" if value is not None and value > 0 else value_text(value)


def text_of(unit: Unit, value: float | None) -> str:
    """The value of a metric."""
    return {Unit.SHARE: percent, Unit.NUMBER: number, Unit.VALUE: value_text}[unit](value)


def change_text(unit: Unit, change: float | None) -> str:
    """The change of a metric, with its sign: in percentage points for a share."""
    return signed_value(change) if unit is Unit.VALUE else signed(change, is_share=unit is Unit.SHARE)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; 0 % and 100 % only if exact.

    >>> percent(0.9012), percent(0.99999), percent(1.0)
    ('90.1%', '>99.9%', '100.0%')
    """
    if value is None:
        return UNKNOWN
    step = 10.0**-digits
    if 0 < value < step / 200:
        return f"<{step:.{digits}f}%"
    if 1 > value > 1 - step / 200:
        return f">{100 - step:.{digits}f}%"
    return f"{value:.{digits}%}"


def points(share: float) -> str:
    """The size of a difference of two shares, in percentage points.

    >>> points(-0.0213), points(0.0002)
    ('2.1 points', '0.02 points')
    """
    size = abs(share) * 100
    return f"{size:.1f} points" if size >= 0.1 or size == 0 else f"{size:.1g} points"


def signed(value: float | None, *, is_share: bool) -> str:
    """A change with its sign: in percentage points for a share.

    >>> signed(0.0123, is_share=True), signed(-0.5, is_share=False), signed(0.00001, is_share=True)
    ('+1.2', '−0.500', '0.0')
    """  # noqa: RUF002
    if value is None:
        return UNKNOWN
    text = f"{abs(value) * 100:.1f}" if is_share else f"{abs(value):.3f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"  # noqa: RUF001
    return f"{sign}{text}"


def interval(estimate: dict[str, float] | None) -> str:
    """The 95 % interval of a share, in words."""
    return f"{percent(estimate['low'])} to {percent(estimate['high'])}" if estimate else ""


def duration(seconds: float) -> str:
    """A duration in words.

    >>> duration(0.42), duration(61), duration(3725)
    ('0.4 s', '1 min 1 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(text: object) -> str:
    """An ISO time as date and time of day; anything else unchanged.

    >>> moment("2026-11-07T03:12:44+00:00")
    '7 November 2026, 03:12 UTC'
    """
    try:
        time = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return shown(text)
    zone = f" {time.tzname()}" if time.tzinfo else ""
    return f"{day(time.date())}, {time:%H:%M}{zone}"


def day(date: datetime.date) -> str:
    """A date in words.

    >>> day(datetime.date(2026, 3, 9))
    '9 March 2026'
    """
    return f"{date.day} {date:%B %Y}"


def chance_text(p_value: float) -> str:
    """A p-value in words.

    >>> chance_text(0.0312), chance_text(0.0)
    ('p = 0.031', 'p < 1e-99')
    """
    return f"p = {p_value:.2g}" if p_value > 1e-99 else "p < 1e-99"


def rows(count: int) -> str:
    """A number of rows in words.

    >>> rows(1), rows(1200)
    ('1 row', '1,200 rows')
    """
    return f"{count:,} row{'' if count == 1 else 's'}"
