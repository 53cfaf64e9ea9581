"""Two names with a ``=`` between them, as several options take: ``pos=POSITIVE``.

Where a name has a ``=`` itself, or spaces around it, it stands in quotes, and a quote in it is doubled, as in CSV:
``'good="rating=5"'``.
"""

from __future__ import annotations

import re

_QUOTED = r'"((?:[^"]|"")*)"'
_HEAD = re.compile(rf"{_QUOTED}\s*=", re.DOTALL)
_PIECE = re.compile(r'(?:"(?:[^"]|"")*"|[^,])+', re.DOTALL)
_TAIL = re.compile(rf"=\s*{_QUOTED}\Z", re.DOTALL)


def pair_of(text: str, *, at_first: bool = False) -> tuple[str, str] | None:
    """Both names, or ``None`` without a ``=`` or a first name; the second may be empty.

    Outside quotes the last ``=`` divides them, or with ``at_first`` the first.

    >>> pair_of('"a=b" = c'), pair_of('a="b=c"'), pair_of("a=b=c"), pair_of("a=b=c", at_first=True), pair_of("=a")
    (('a=b', 'c'), ('a', 'b=c'), ('a=b', 'c'), ('a', 'b=c'), None)
    """
    text = text.strip()
    if head := _HEAD.match(text):
        first, second = _plain(head[1]), _plain_side(text[head.end() :].strip())
    elif tail := _TAIL.search(text):
        first, second = text[: tail.start()].strip(), _plain(tail[1])
    elif "=" in text:
        sides = text.split("=", 1) if at_first else text.rsplit("=", 1)
        first, second = (side.strip() for side in sides)
    else:
        return None
    return (first, second) if first else None


def divided_pairs(text: str) -> list[str]:
    """Pairs with commas between them; one in quotes divides nothing.

    >>> divided_pairs('0="a, b",1=c')
    ['0="a, b"', '1=c']
    """
    return _PIECE.findall(text) or [text]


def quoted_pair(first: str, second: str) -> str:
    """The text that :func:`pair_of` takes apart into these two."""
    return "=".join(map(_in_quotes, (first, second)))


def _plain_side(text: str) -> str:
    match = re.fullmatch(_QUOTED, text, re.DOTALL)
    return _plain(match[1]) if match else text


def _plain(text: str) -> str:
    return text.replace('""', '"')


def _in_quotes(text: str) -> str:
    if not re.search('[=,"]', text) and text == text.strip():
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
