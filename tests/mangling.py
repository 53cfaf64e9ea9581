"""Damage as disks, editors and attackers do it: to bytes, and to JSON documents at any place."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

BYTES = (
    b"\0",
    b"\xff",
    b"\x80",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"<",
    b"PAR1",
    b"\x1b[31m",
)
"""Bytes that mean something to somebody."""
NUMBERS = tuple(
    value.to_bytes(size, "little")
    for size, values in (
        (1, (0, 1, 127, 128, 255)),
        (4, (0, 1, 2**31 - 1, 2**31, 2**32 - 1)),
        (8, (2**40, 2**63 - 1, 2**64 - 1)),
    )
    for value in values
)
"""Lengths and offsets that no file has."""
VALUES = (
    "null", "true", "-1", "0", "1e999", "-0.0", "1.5", "NaN", "-Infinity", "1" + "0" * 400, "1000000000", '""', '"x"',
    '"\\ud800"', '"\\u0000"', '"\\u202e\\u009b"', '"../../etc/passwd"', '"/dev/zero"', "[]", "{}", "[[]]", '{"": null}',
    '["a", 1, null]', "[" * 200 + "]" * 200, "[" * 100_000 + "]" * 100_000, '"' + "y" * 100_000 + '"',
)  # fmt: skip
"""JSON values, as text, that are of the wrong kind in most places."""
_MOST = 4
"""Changes to one input."""


def mangled(seeds: Sequence[bytes], chance: random.Random, *, in_place: bool = False) -> bytes:
    """One of the seeds with one to four changes; ``in_place``: with one that moves nothing, for files full of offsets."""
    data = bytearray(chance.choice(seeds))
    changes = (
        (_flip, _overwrite) if in_place else (_flip, _overwrite, _insert, _delete, _cut, _repeat, _splice)
    )
    for _ in range(1 if in_place else chance.randint(1, _MOST)):
        change = chance.choice(changes)
        data = change(data, chance, seeds)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """A place, often near an end, where formats keep their lengths."""
    near = min(len(data), 64)
    return chance.choice(
        (chance.randint(0, len(data)), chance.randint(0, near), len(data) - chance.randint(0, near))
    )


def _flip(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    for _ in range(chance.randint(1, 8)):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def _overwrite(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at, new = _place(data, chance), chance.choice((*BYTES, *NUMBERS))
    data[at : at + len(new)] = new
    return data


def _insert(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at, new = _place(data, chance), chance.choice((*BYTES, *NUMBERS)) * chance.choice((1, 1, 1, 50, 5000))
    data[at:at] = new
    return data


def _delete(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 4, 100))]
    return data


def _cut(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    at = _place(data, chance)
    return data[:at] if chance.random() < 0.7 else data[at:]


def _repeat(data: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    start, end = sorted((_place(data, chance), _place(data, chance)))
    piece = data[start : min(end, start + 2000)] * chance.choice((1, 1, 20))
    data[end:end] = piece
    return data


def _splice(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> bytearray:
    other = bytearray(chance.choice(seeds))
    return data[: _place(data, chance)] + other[_place(other, chance) :]


# ------------------------------------------------------------------------------------------------------ JSON documents


def mangled_json(text: bytes, chance: random.Random) -> bytes:
    """A document with a value replaced, a member removed or given twice; one in four times its bytes are mangled."""
    if chance.random() < 0.25:
        return mangled([text], chance)
    document = json.loads(text)
    for _ in range(chance.randint(1, 2)):
        document = _changed(document, chance)
    return _written(document).encode("utf-8", "surrogatepass")


class _Raw(str):
    """JSON that is written as it is."""

    __slots__ = ()


def _changed(document: Any, chance: random.Random) -> Any:
    """The document with one place changed: of any depth, each level as likely as the next."""
    is_inside = isinstance(document, dict | list) and document and chance.random() < 0.8
    if not is_inside:
        return _Raw(chance.choice(VALUES))
    if isinstance(document, list):
        at = chance.randrange(len(document))
        return [*document[:at], _changed(document[at], chance), *document[at + 1 :]]
    name = chance.choice(list(document))
    kind = chance.random()
    if kind < 0.1:
        return {key: value for key, value in document.items() if key != name}
    if kind < 0.2:
        return {_Twice(name): document[name], **document}
    return {**document, name: _changed(document[name], chance)}


class _Twice(str):
    """A name that is written beside its equal."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _written(value: Any) -> str:
    if isinstance(value, _Raw):
        return value
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(str(name))}: {_written(each)}" for name, each in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)
