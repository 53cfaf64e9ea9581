"""Copies on this machine of what a run reads from buckets and from the hub: inputs, a bundle, an earlier run.

An input is copied whole before it is read, in the version that the listing showed, and what is scored is that copy: ``run.json`` has its
ETag beside its SHA-256. What changes in the bucket meanwhile changes nothing in the run.
"""

from __future__ import annotations

import fnmatch
import glob
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import NamedTuple

from batchscore.addresses import BUCKETS, HUB, Address, address_in
from batchscore.errors import DataError, ModelError, NoInputError, StorageError, UsageError, printable
from batchscore.formats.foreign import MARKS, is_mark
from batchscore.formats.inputs import is_scorable
from batchscore.formats.registry import suffixes
from batchscore.runs.folder import STAGING
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import atomic_write, make_folder, write_bytes
from batchscore.system.stores import ChangedError, ReadStore, Store, Stored
from batchscore.system.terminal import NOTICE

_LOG = logging.getLogger(__name__)
INPUT_SCHEMES = (*BUCKETS, HUB)
"""Schemes of addresses that inputs may have."""
_AT_ONCE = 8


class Copied(NamedTuple):
    """Inputs that were copied: what stands for them, and their versions."""

    arguments: tuple[str, ...]
    pinned: Mapping[str, str]
    """Address → version."""


def open_store(place: Address) -> ReadStore:
    """What is below an address: of a bucket, or of a data set on the hub.

    Raises:
        BatchscoreError: it cannot be opened; see :mod:`batchscore.system.buckets` and :mod:`batchscore.runs.hub_files`.
    """
    if place.scheme == HUB:
        from batchscore.runs.hub_files import HubStore

        return HubStore(place)
    return open_bucket(place)


def open_bucket(place: Address) -> Store:
    """What is below an address of a bucket, to be written too.

    Raises:
        UsageError, ModelError: as :class:`~batchscore.system.buckets.BucketStore`.
    """
    from batchscore.system.buckets import BucketStore

    return BucketStore(place)


def addresses_of(inputs: Sequence[str]) -> list[Address] | None:
    """The addresses that inputs are; None if they are paths.

    Raises:
        UsageError: some are paths and some are addresses, or one cannot be meant.
    """
    found = [address_in(each, INPUT_SCHEMES) for each in inputs]
    if not any(found):
        return None
    if not all(found):
        raise UsageError(
            "Some inputs are paths and some are addresses. Score them as two runs, or copy them to one place."
        )
    return [each for each in found if each is not None]


def copy_inputs(
    addresses: Sequence[Address], folder: OwnPath, without: Address | None, pinned: Mapping[str, str]
) -> Copied:
    """Copy inputs below ``folder``, with their keys for names; what lies below ``without``, the run folder, is left out.

    ``pinned`` has versions that are wanted alone, by address.

    Raises:
        NoInputError: an address leads to nothing.
        DataError: an object was written while it was copied.
        StorageError: the store fails, or the disk is full.
    """
    arguments: list[str] = []
    wanted: dict[tuple[Address, str], Stored] = {}
    for address in addresses:
        root, key = _root_of(address)
        store = open_store(root)
        place = folder / f"{address.scheme}/{root.bucket}/{root.key}".rstrip("/")
        found = list(_resolved(store, root, key, without))
        wanted |= {(root, each.name): each for each in found}
        is_folder = not any(each.name == key for each in found) and not glob.has_magic(key)
        names = [key] if is_folder else sorted(each.name for each in found)
        arguments += [str((place / name if name else place).path) for name in names]
        for mark in _marks_beside(store, key if is_folder else _literal(key)):
            make_folder((place / mark).parent)
            write_bytes(place / mark, b"")
    for (root, name), each in wanted.items():
        if pinned.get(str(root / name), each.version.e_tag) != each.version.e_tag:
            raise _changed(open_store(root), name)
    size = sum(each.size for each in wanted.values())
    _LOG.log(NOTICE, "%d files (%.1f MB) are copied to this machine first", len(wanted), size / 1e6)
    versions: dict[str, str] = {}
    for root, group in itertools.groupby(sorted(wanted), key=lambda each: each[0]):
        place = folder / f"{root.scheme}/{root.bucket}/{root.key}".rstrip("/")
        objects = [wanted[each] for each in group]
        _copy(open_store(root), objects, place)
        versions |= {str(root / each.name): each.version.e_tag or "" for each in objects}
    return Copied(tuple(arguments), versions)


def copy_folder(address: Address, folder: OwnPath) -> OwnPath:
    """Copy all that is below an address, or the one object there, but what a run is at work on; returns the copy.

    Raises:
        NoInputError: there is nothing.
        DataError, StorageError: as :func:`copy_inputs`.
    """
    store = open_store(address)
    found = [each for each in store.list() if not each.name.startswith(f"{STAGING}/")]
    place = folder / address.name
    if found:
        _copy(store, found, place)
        return place
    beside = open_store(address.parent)
    found = [each for each in beside.list() if address.key and each.name == address.name]
    if not found:
        raise NoInputError(f"There is nothing at {printable(address)}. Check the address.")
    _copy(beside, found, folder)
    return place


def copy_bundle(address: Address, folder: OwnPath) -> OwnPath:
    """The same for a model.

    Raises:
        ModelError: there is nothing.
    """
    try:
        return copy_folder(address, folder)
    except NoInputError as error:
        raise ModelError(str(error)) from None


def _root_of(address: Address) -> tuple[Address, str]:
    """Where the names of an address begin, and the rest: for a data set on the hub below its own name."""
    if address.scheme != HUB:
        return Address(address.scheme, address.bucket), address.key
    pieces = address.key.split("/")
    if address.bucket != "datasets" or len(pieces) < 2:
        raise UsageError(
            f"{printable(address)}: of the hub, data sets are read: hf://datasets/OWNER/NAME[@REVISION]/FILE."
        )
    return Address(HUB, address.bucket, "/".join(pieces[:2])), "/".join(pieces[2:])


def _resolved(store: ReadStore, root: Address, key: str, without: Address | None) -> Iterator[Stored]:
    """The objects that an argument means: one, those of a folder that are tables by name, or those that match a glob."""
    below = list(store.list(_literal(key) if glob.has_magic(key) else key.rpartition("/")[0]))
    is_in_run = _in_run(root, without)
    if (exact := next((each for each in below if each.name == key), None)) is not None:
        if is_in_run(exact.name):
            raise NoInputError(f"{printable(root / key)} lies in the run folder. Name another --output.")
        yield exact
        return
    start = f"{key}/" if key else ""
    inside = [each for each in below if each.name.startswith(start)]
    if inside:
        found = [
            each for each in inside if is_scorable(each.name.removeprefix(start)) and not is_in_run(each.name)
        ]
        if not found:
            raise NoInputError(
                f"{printable(root / key if key else root)} holds no file to score; these end in {', '.join(suffixes())}, and may be "
                "compressed."
            )
    else:
        matches = pattern_of(key)
        found = [each for each in below if matches(each.name) and not is_in_run(each.name)]
        if not found:
            raise NoInputError(
                f"No such input: {printable(root / key)}. Check the address; a glob must be quoted and match a file."
            )
    yield from found


def _in_run(root: Address, run: Address | None) -> Callable[[str], bool]:
    if run is None or (run.scheme, run.bucket) != (root.scheme, root.bucket):
        return lambda _: False
    return lambda name: f"{name}/".startswith(f"{run.key}/")


def _literal(key: str) -> str:
    """The folder of a glob that all its matches are in."""
    pieces = itertools.takewhile(lambda piece: not glob.has_magic(piece), key.split("/")[:-1])
    return "/".join(pieces)


def pattern_of(key: str) -> Callable[[str], bool]:
    """Whether a name matches a glob, as paths do: ``**`` stands for folders, and nothing but itself for a leading dot.

    >>> matches = pattern_of("a/**/x*.csv")
    >>> matches("a/x1.csv"), matches("a/b/c/x.csv"), matches("a/b/.x.csv"), matches("a/.b/x.csv")
    (True, True, False, False)
    """
    pieces = []
    for piece in key.split("/"):
        if piece == "**":
            pieces.append(r"(?:(?!\.)[^/]+/)*")
        else:
            hidden = "" if piece.startswith(".") else r"(?!\.)"
            pieces.append(
                hidden + fnmatch.translate(piece)[4:-3].replace(".*", "[^/]*").replace("(?s:", "(?:") + "/"
            )
    pattern = re.compile("".join(pieces).removesuffix("/"), re.DOTALL)
    return lambda name: pattern.fullmatch(name) is not None


def _marks_beside(store: ReadStore, folder: str) -> list[str]:
    """Names in a folder, or in one above it, or below it, that show a table whose log says which of its rows count."""
    above = [
        str(each) if str(each) != "." else ""
        for each in (PurePosixPath(folder), *PurePosixPath(folder).parents)
    ]
    found = [each.name for each in store.list(folder) if is_mark(each.name)]
    for place in dict.fromkeys(above):
        for mark in MARKS:
            found += [each.name for each in store.list(f"{place}/{mark}".lstrip("/")) if is_mark(each.name)]
    return list(dict.fromkeys(found))


def _copy(store: ReadStore, objects: Iterable[Stored], place: OwnPath) -> None:
    objects = list(objects)
    for folder in sorted({each.name.rpartition("/")[0] for each in objects}):
        try:
            make_folder(place / folder if folder else place)
        except ValueError:
            raise DataError(
                f"{printable(store)}: {printable(folder)} is no name that a file can have. Rename it."
            ) from None
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda each: _copy_one(store, each, place), objects))


def _copy_one(store: ReadStore, found: Stored, place: OwnPath) -> None:
    try:
        size = 0
        with store.open(found.name, found.version) as source, atomic_write(place / found.name) as out:
            while block := source.read(1 << 20):
                out.write(block)
                size += len(block)
    except (ChangedError, FileNotFoundError):
        raise _changed(store, found.name) from None
    if size != found.size:
        raise StorageError(
            f"{printable(found.name)} in {printable(store)}: {size} bytes came of {found.size}. Try it again."
        )


def _changed(store: ReadStore, name: str) -> DataError:
    return DataError(
        f"{printable(name)} in {printable(store)} changed while it was being copied. Write it under another name, and "
        "rename it when it is whole, then run the same command again."
    )
