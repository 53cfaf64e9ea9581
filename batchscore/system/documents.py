"""JSON documents that somebody else may have written: regular files only, read whole within bounds, and checked by their shape.

Every JSON document that the program reads (facts of bundles and runs, settings of models, notes) comes through
:func:`read_json` or :func:`parse_json`, so that none of them can hang (a pipe in place of a file), exhaust the memory, or
hold a number that no double can. What is wrong is a :class:`DocumentError`, which tells the place; the caller knows whether that
is bad data or an unusable model.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import IO, Any

from batchscore.errors import printable
from batchscore.system.own_paths import AnyPath, OwnPath

MOST_BYTES = 128 * 2**20
"""Of a document: the facts of a run over 100,000 files."""
_MOST_DEPTH = 100
_MOST_VALUES = 8_000_000
_MOST_DIGITS = 40
"""Of a whole number: tokenizers have 1e30 for "no limit", written out."""
_SHOWN = 60
"""Characters of a value or name in a message."""


class DocumentError(ValueError):
    """A document that cannot be meant: no regular file, too large, no JSON, or of another shape."""


def read_regular(path: AnyPath, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file; never waits for a pipe or a device, and follows no link to one of our own.

    Raises:
        OSError: there is none, it cannot be read, or what lies there is not ours.
        DocumentError: it is something else, or larger than ``most_bytes``.
    """
    with path.open_read() if isinstance(path, OwnPath) else _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most_bytes else file.read(most_bytes + 1)
        if max(size, len(content)) > most_bytes:
            raise DocumentError(f"it is larger than {most_bytes >> 20 or 1} MiB")
        return content


def _open(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DocumentError("it is no regular file")
    return open(descriptor, "rb")  # noqa: PTH123 - a descriptor, which the caller closes


def read_json(path: AnyPath, *, is_finite: bool = True) -> Any:
    """The JSON value in a file; see :func:`parse_json`.

    Raises:
        OSError, DocumentError: as :func:`read_regular` and :func:`parse_json`.
    """
    return parse_json(read_regular(path), is_finite=is_finite)


def parse_json(content: bytes, *, is_finite: bool = True) -> Any:
    """The JSON value in some bytes of UTF-8, without a byte order mark.

    Names occur once in an object, nesting is at most 100 deep, whole numbers have at most 40 digits, and ``is_finite``
    refuses NaN and infinite numbers (other programs write them into settings of models).

    Raises:
        DocumentError: anything else.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise DocumentError(f"it has more than {_MOST_VALUES} values")
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise DocumentError("its values are nested too deeply") from None
    except DocumentError:
        raise
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise DocumentError(printable(error)) from None
    _refuse_odd(value, is_finite=is_finite)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"it has {_shown(twice)} twice")
    return found


def _refuse_odd(value: Any, *, is_finite: bool) -> None:
    """Raise for values that are nested too deeply, and numbers that are too long or not finite."""
    level = [value]
    for _ in range(_MOST_DEPTH):
        nested: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                nested += each.values()
            elif isinstance(each, list):
                nested += each
            elif isinstance(each, float):
                if is_finite and not math.isfinite(each):
                    raise DocumentError("it holds a number that is not finite")
            elif isinstance(each, int) and abs(each) >= 10**_MOST_DIGITS:
                raise DocumentError(f"it holds a number of more than {_MOST_DIGITS} digits")
        if not nested:
            return
        level = nested
    raise DocumentError("its values are nested too deeply")


Shape = type | UnionType | Mapping[Any, Any] | Sequence[Any]
"""What a value should be: a type or several (``int | None``), ``[shape]`` for a list, ``{str: shape}`` for an object with any
names, or ``{"name": shape, "other?": shape}`` for one with these, where ``?`` marks what may be missing or null."""
LARGEST = 2**63
"""A whole number of ours is smaller, so that numpy and Arrow hold it."""


def checked(value: Any, shape: Shape, place: str = "it") -> Any:
    """The value, if it has the shape.

    >>> checked({"rows": 3}, {"rows": int, "note?": str})
    {'rows': 3}

    Raises:
        DocumentError: it has not; the message tells the place (``files[2].rows``) and what is there.
    """
    if isinstance(shape, Mapping):
        _check_object(value, shape, place)
    elif isinstance(shape, Sequence):
        if not isinstance(value, list):
            raise _other(place, value, "a list")
        for number, each in enumerate(value):
            checked(each, shape[0], f"{place}[{number}]")
    elif not _is_of(value, shape):
        raise _other(place, value, _kind(shape))
    return value


def _check_object(value: Any, shape: Mapping[Any, Any], place: str) -> None:
    if not isinstance(value, dict):
        raise _other(place, value, "an object")
    start = "" if place == "it" else f"{place}."
    if str in shape:
        for name, each in value.items():
            checked(each, shape[str], f"{start}{_shown(name)}")
        return
    for name, wanted in shape.items():
        plain = name.removesuffix("?")
        if plain != name and value.get(plain) is None:
            continue
        if plain not in value:
            raise DocumentError(f"{start}{plain} is missing")
        checked(value[plain], wanted, f"{start}{plain}")


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool or (isinstance(kind, UnionType) and bool in kind.__args__) or kind is object
    if isinstance(value, int) and abs(value) >= LARGEST and kind is not object:
        return False
    return isinstance(value, kind)


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}


def _kind(shape: Any) -> str:
    kinds = shape.__args__ if isinstance(shape, UnionType) else (shape,)
    return " or ".join(
        _KINDS.get(kind, kind.__name__) for kind in kinds if not (kind is int and float in kinds)
    )


def _other(place: str, value: Any, wanted: str) -> DocumentError:
    found = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else _shown(value)
    return DocumentError(f"{place} is {found}, not {wanted}")


def _shown(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
