"""Which weights a folder is loaded from, by the headers of its safetensors files: read and held against each other first.

A header of a few kilobytes tells the name, type and shape of each tensor. So what a configuration asks for can be compared
with what is there before a library is given either: a header that lies about its file, a shard outside the folder or twice the
same tensor, and layers or labels by the billion are refused, not tried.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.errors import ModelError, printable
from batchscore.model.bundle_facts import json_file
from batchscore.system.documents import DocumentError, checked, parse_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
"""Bytes, as in the library."""
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of a number, by the names of the format."""
_TENSOR = {"dtype": str, "shape": [int], "data_offsets": [int]}
_COUNTED = re.compile(r"(^|_)n?(layers?|groups?|blocks?|experts?|stages?|depth|repeats?)(_|$)")
"""Names in a configuration of how many modules there are."""
_NO_COUNT = re.compile(r"_(id|ids|size|dim|eps|std|scale|theta|types?|capacity|freq|ratio)$")
_ALWAYS_FEW = 256
"""Modules that any configuration may ask for; layers may share their weights."""
_ROOM = 2**30
"""Bytes that a model may need beyond its weights: tables that are computed, not stored."""


class Tensor(NamedTuple):
    """A tensor as its file describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def tensors_of(folder: Path, listed: Collection[str]) -> dict[str, Tensor]:
    """The tensors that a folder's model is loaded from, by name; ``listed`` are the files that may be read.

    Raises:
        ModelError: a header is damaged; the index names a file that is not listed, or a tensor that is not in its file; a
            tensor is in two files.
    """
    found: dict[str, Tensor] = {}
    index = {} if WEIGHTS in listed else _index(folder, listed)
    for name in sorted(set(index.values())) if index else [WEIGHTS]:
        tensors = read_header(folder / name)
        if twice := found.keys() & tensors.keys():
            raise ModelError(
                f"{printable(folder)}: the tensor {printable(min(twice))} is in {printable(name)} and in another file, so which "
                "one counts cannot be told. Fetch the model again whole."
            )
        found |= tensors
    for tensor, name in index.items():
        if tensor not in found:
            raise ModelError(
                f"{printable(folder)}: {INDEX} has the tensor {printable(tensor)} in {printable(name)}, where it is not. Fetch "
                "the model again whole."
            )
    return found


def _index(folder: Path, listed: Collection[str]) -> dict[str, str]:
    """Tensor → file of a model in several files."""
    facts = json_file(folder, INDEX)
    try:
        index: dict[str, str] = checked(facts, {"weight_map": {str: str}})["weight_map"]
    except DocumentError as error:
        raise ModelError(
            f"{printable(folder / INDEX)} has no weight_map of file names: {error}. Fetch it again."
        ) from None
    if not index:
        raise ModelError(f"{printable(folder / INDEX)} has an empty weight_map. Fetch it again.")
    for name in sorted(set(index.values()) - set(listed)):
        path = folder / name
        if os.path.lexists(path):
            raise ModelError(
                f"{printable(folder / INDEX)} names {printable(name)}, which is not among the files of the folder itself. A model "
                "is loaded from its own folder only: put the file there, under a plain name."
            )
        missing = len(set(index.values()) - set(listed))
        more = f" and {missing - 1} more" if missing > 1 else ""
        raise ModelError(
            f"{printable(folder)}: its weights are not complete; {printable(name)}{more}, named in {INDEX}, is missing. "
            "Fetch it again whole."
        )
    return index


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        ModelError: the header is damaged, or not that of a file of this size.
    """
    try:
        return _tensors(*_header(path))
    except OSError as error:
        raise ModelError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    except DocumentError as error:
        raise ModelError(
            f"{printable(path)} is no whole safetensors file: its header cannot be meant ({error}). Fetch or train the model "
            "again."
        ) from None


def _header(path: Path) -> tuple[Any, int]:
    """The header and the number of bytes behind it."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise DocumentError(f"it is said to have {length} bytes, the file has {size}")
        return parse_json(file.read(length).rstrip(b" ")), size - 8 - length


def _tensors(header: Any, n_bytes: int) -> dict[str, Tensor]:
    """The tensors that a header describes; they fill the bytes without a gap or an overlap."""
    if not isinstance(header, dict):
        raise DocumentError("it is no object")
    found: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, facts in header.items():
        if name == "__metadata__":
            checked(facts, {str: str}, "__metadata__")
            continue
        shown = printable(name)[:100]
        checked(facts, _TENSOR, shown)
        tensor = Tensor(facts["dtype"], tuple(facts["shape"]))
        if tensor.dtype not in _BITS:
            raise DocumentError(f"{shown} is of the unknown type {printable(tensor.dtype)[:40]}")
        if any(length < 0 for length in tensor.shape) or len(facts["data_offsets"]) != 2:
            raise DocumentError(f"{shown} has the shape {list(tensor.shape)[:9]}")
        start, end = facts["data_offsets"]
        if (end - start) * 8 != tensor.size * _BITS[tensor.dtype]:
            raise DocumentError(f"{shown} has {end - start} bytes, which its shape does not need")
        found[name] = tensor
        spans.append((start, end, shown))
    stop = 0
    for start, end, shown in sorted(spans):
        if start != stop:
            raise DocumentError(f"{shown} begins at {start}, where {stop} is free")
        stop = end
    if stop != n_bytes:
        raise DocumentError(f"its tensors have {stop} bytes, the file has {n_bytes}")
    return found


# -------------------------------------------------------------------------------- what a configuration may ask for


def refuse_impossible_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise for a configuration that asks for more modules than there are tensors, before any is built.

    Raises:
        ModelError: names the key.
    """
    most = max(len(tensors), _ALWAYS_FEW)
    for key, value in _counts(config):
        if value > most:
            raise ModelError(
                f"{printable(path)}: {printable(key)} is {value}, but the weights are only {len(tensors)} tensors. Fetch or "
                "train the model again."
            )


def _counts(config: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _counts(value, f"{start}{key}.")
        elif isinstance(value, int) and _COUNTED.search(key) and not _NO_COUNT.search(key):
            yield f"{start}{key}", value


def refuse_too_large(n_bytes: int, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise for a model of ``n_bytes`` in float32 where the files hold only a fraction of that.

    Raises:
        ModelError: names both sizes.
    """
    stored = 4 * sum(tensor.size for tensor in tensors.values())
    if n_bytes > 2 * stored + _ROOM:
        raise ModelError(
            f"{printable(path)} asks for a model of {n_bytes / 2**20:,.0f} MiB, but the weights are {stored / 2**20:,.0f} MiB. "
            "Fetch or train the model again."
        )
