"""A run folder in a bucket: the run works in a copy on this machine, and what it has done is put into the bucket as it is done.

::

    predictions/..., run.json, _SUCCESS   as in a folder
    .staging/lock.json                    who holds it, and until when
    .staging/<fingerprint>/parts/         a staged part a key: its entry in the journal, a newline, and the bytes of its file
    .staging/<fingerprint>/entries/       the entries of the journal that are of no part
    .staging/*.json                       as in a folder

A part is done when its key is there, so a run that was killed on one machine goes on on another. Final files are built in the copy and counted
there again. Then the old ``_SUCCESS`` is removed, each file is put whole, on the condition that nobody else wrote it, sizes and versions
of all are compared with what was put, and the new ``_SUCCESS`` is created. Before each write the lease is looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from batchscore.errors import BatchscoreError, BusyError, OutputError, TakenError, printable
from batchscore.runs import shapes
from batchscore.runs.as_written import refuse_problems, written_sizes
from batchscore.runs.folder import (
    ACCEPTING,
    BEFORE_SCORING,
    CHOSEN,
    FACTS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    REPLACED,
    STAGING,
    Staging,
)
from batchscore.system.documents import DocumentError, checked, parse_json
from batchscore.system.journal import Journal, checked_entry, checked_line, read_checked, write_checked
from batchscore.system.leases import Lease
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import (
    atomic_write,
    make_folder,
    read_manifest,
    remove_file,
    write_bytes,
)
from batchscore.system.stores import ChangedError, Content, Store, Stored, Version, bytes_of

_FIRST = (MANIFEST, FACTS, METRICS)
"""What tells which run has finished here."""
_NOTED = (REPLACED, CHOSEN, ACCEPTING)
"""Notes directly in ``.staging/`` that bind a later start."""
_AT_ONCE = 8
"""Files that are put or read at the same time: most of the time of each is waiting."""
_ANY_TIME = datetime.datetime.fromtimestamp(0, datetime.UTC)
"""When something was written, where that does not matter."""


class BucketRun:
    """One run folder in a store, whose lease the caller holds, and its copy on this machine."""

    def __init__(self, store: Store, lease: Lease, copy: OwnPath) -> None:
        self._store, self._lease, self._copy = store, lease, copy
        self._found = {each.name: each for each in store.list()}

    @property
    def is_finished(self) -> bool:
        """Whether a finished run was there."""
        return MANIFEST in self._found

    # ------------------------------------------------------------------------------------------ before the run

    def fetch(self) -> None:
        """Make the copy look as the run folder does, as far as the start of a run looks at it."""
        make_folder(self._copy)
        if self.is_finished:
            for name in filter(self._found.get, _FIRST):
                self._fetch(name)
        for name in BEFORE_SCORING & self._found.keys():
            write_bytes(self._copy / name, b"")  # that it is there is enough
        for name in _NOTED:
            if (staged := f"{STAGING}/{name}") in self._found:
                self._fetch(staged)
        for key in self._staged_keys():
            pieces = key.split("/")
            if len(pieces) == 4:  # that anything was scored is enough, until it is known which run this is
                folder = self._copy / f"{STAGING}/{pieces[1]}/parts"
                make_folder(folder)
                write_bytes(folder / pieces[3], b"")

    def _fetch(self, name: str) -> None:
        path = self._copy / name
        make_folder(path.parent)
        copy_object(self._store, self._found[name], path)

    def _noted_keys(self) -> Iterator[str]:
        """Keys in ``.staging/`` but those of the lease."""
        return filter(_is_noted, self._found)

    def _staged_keys(self) -> list[str]:
        return [name for name in self._noted_keys() if "/parts/" in name]

    # ------------------------------------------------------------------------------------------ while it scores

    def open_journal(self, staging: Staging) -> Journal:
        """The journal of the run in this staging folder, with what is staged in the bucket; what else is staged there goes."""
        self._lease.assert_held()
        fingerprint = staging.folder.name
        for name in _NOTED:
            self._keep(f"{STAGING}/{name}")
        own = f"{STAGING}/{fingerprint}/"
        for name in list(self._noted_keys()):
            if not name.startswith(own) and name.count("/") > 1:
                self._delete(name)
        entries = [self._entry(name) for name in sorted(self._found) if name.startswith(f"{own}entries/")]
        parts = [name for name in self._staged_keys() if name.startswith(own)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            entries += list(pool.map(lambda name: self._staged(name, staging), parts))
        staging.journal.unlink(missing_ok=True)
        journal = Journal(staging.journal, shapes.JOURNAL)
        journal.extend([entry for entry in entries if entry is not None], is_durable=False)
        journal.close()
        return _KeptJournal(staging, self)

    def _keep(self, name: str) -> None:
        """Have in the bucket what the copy has under a name."""
        path = self._copy / name
        if path.exists():
            self._lease.assert_held()
            self._store.put(name, path)
        elif name in self._found:
            self._delete(name)

    def _delete(self, name: str) -> None:
        self._lease.assert_held()
        self._store.delete(name)
        self._found.pop(name, None)

    def _entry(self, name: str) -> dict[str, Any] | None:
        return _entry_of(bytes_of(self._store, name).rstrip(b"\n"))

    def _staged(self, name: str, staging: Staging) -> dict[str, Any] | None:
        """The entry of a staged part, whose file is put into the copy; a damaged one is removed, and scored again."""
        line, _, content = bytes_of(self._store, name, self._found[name].version).partition(b"\n")
        entry = _entry_of(line)
        if entry is None or hashlib.sha256(content).hexdigest() != entry.get("sha256"):
            self._delete(name)
            remove_file(staging.parts, name.rpartition("/")[2])
            return None
        write_bytes(staging.parts / name.rpartition("/")[2], content)
        return entry

    def stage(self, entries: Sequence[Mapping[str, Any]], staging: Staging, first: int) -> None:
        """Put entries of the journal, the ``first`` of them of this number, and the parts that they are about."""
        own = f"{STAGING}/{staging.folder.name}/entries/"
        numbers = [int(name.removeprefix(own)) for name in self._found if name.startswith(own)]
        first = max([first, *(number + 1 for number in numbers)])  # a damaged part has no entry any more
        with ThreadPoolExecutor(min(_AT_ONCE, len(entries))) as pool:
            list(pool.map(lambda each: self._stage(each[1], staging, each[0]), enumerate(entries, first)))

    def _stage(self, entry: Mapping[str, Any], staging: Staging, number: int) -> None:
        folder, line = f"{STAGING}/{staging.folder.name}", checked_line(entry)
        if entry.get("shard") is None:
            name, content = f"{folder}/entries/{number:08d}", line
        else:
            path = staging.shard(entry["shard"])
            name, content = f"{folder}/parts/{path.name}", line + path.read_bytes()
        self._lease.assert_held()
        try:
            self._store.create(name, content)
        except FileExistsError:  # one that was found damaged, or was written by a start that lost its lease
            self._lease.assert_held()
            self._store.put(name, content)
        self._found[name] = Stored(name, len(content), Version(None), _ANY_TIME)

    # ------------------------------------------------------------------------------------------ when it has finished

    def publish(self) -> None:
        """Put the finished run of the copy in place.

        Raises:
            BusyError: somebody else wrote here meanwhile.
        """
        hashes = read_manifest(self._copy)
        self._found = {each.name: each for each in self._store.list()}
        noted = self._note_replaced(set(hashes))
        if MANIFEST in self._found:
            self._delete(MANIFEST)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            put = dict(zip(hashes, pool.map(self._put, hashes), strict=True))
        for stale in sorted((noted | BEFORE_SCORING) & self._found.keys() - hashes.keys() - {MANIFEST}):
            self._delete(stale)
        self._assert_put(put)
        self._lease.assert_held()
        self._put_once(MANIFEST, self._copy / MANIFEST, None)
        for name in list(self._noted_keys()):
            self._delete(name)

    def _note_replaced(self, names: set[str]) -> set[str]:
        """Note which files are removed unless they are written again, before any is; returns those of earlier runs too."""
        noted = names | set(read_checked(self._copy / f"{STAGING}/{REPLACED}") or ())
        name = f"{STAGING}/{REPLACED}"
        if MANIFEST in self._found:
            before = self._copy / f"{STAGING}/before"
            make_folder(before)
            copy_object(self._store, self._found[MANIFEST], before / MANIFEST)
            with contextlib.suppress(BatchscoreError):  # damaged: what it listed is not known
                noted |= set(read_manifest(before))
        if name in self._found:
            earlier = self._copy / f"{STAGING}/earlier.json"
            make_folder(earlier.parent)
            copy_object(self._store, self._found[name], earlier)
            noted |= set(read_checked(earlier) or ())
        make_folder(self._copy / STAGING)
        write_checked(self._copy / name, sorted(noted))
        self._keep(name)
        self._found.setdefault(name, Stored(name, 0, Version(None), _ANY_TIME))
        return noted

    def _put(self, name: str) -> tuple[int, Version]:
        path, found = self._copy / name, self._found.get(name)
        self._lease.assert_held()
        return path.stat().st_size, self._put_once(name, path, found)

    def _put_once(self, name: str, content: Content, found: Stored | None) -> Version:
        try:
            if found is None:
                return self._store.create(name, content)
            return self._store.replace(name, content, found.version)
        except (FileExistsError, ChangedError):
            raise _mixed(self._store, name) from None

    def _assert_put(self, put: Mapping[str, tuple[int, Version]]) -> None:
        """See that what is there is what was put: nobody else wrote it, and nothing of it is missing."""
        there = {each.name: (each.size, _plain(each.version)) for each in self._store.list()}
        for name, (size, version) in put.items():
            if there.get(name) != (size, _plain(version)):
                raise _mixed(self._store, name)

    def forget_staged(self) -> None:
        """Remove what is staged in the bucket, as the copy has nothing staged any more."""
        for name in list(self._noted_keys()):
            self._delete(name)

    def leave(self) -> None:
        """After a start that did not finish: have in the bucket what it leaves in a folder."""
        if not self.is_finished:
            for name in BEFORE_SCORING:
                path = self._copy / name
                if path.exists() and not path.stat().st_size:
                    continue  # as it was fetched
                self._keep(name)
        if not (self._copy / STAGING).exists():
            self.forget_staged()

    # ------------------------------------------------------------------------------------------ had it finished before

    def refuse_changed(self, *, hash_all: bool = False) -> None:
        """Refuse to call the run finished where its objects are not those that it wrote.

        An object that has its size, and was written before the second in which ``_SUCCESS`` was, is believed; any other is hashed.

        Raises:
            OutputError: names them.
        """
        problems = changes_in_store(
            self._store, self._found, read_manifest(self._copy), written_sizes(self._copy), hash_all
        )
        refuse_problems(str(self._store), problems)


def refuse_foreign_objects(store: Store) -> None:
    """Refuse a place that holds something else than a run, before anything is written there.

    Raises:
        TakenError: it does.
    """
    found = {each.name for each in store.list()}
    foreign = {name.partition("/")[0] for name in found} - {STAGING} - BEFORE_SCORING
    if foreign and MANIFEST not in found and not any(map(_is_noted, found)):
        raise TakenError(
            f"{printable(store)} holds something that is no run ({printable(min(foreign))}). Name another --output."
        )


def _is_noted(name: str) -> bool:
    """Whether a key is one in ``.staging/``, but none of the lease."""
    folder, _, rest = name.partition("/")
    return folder == STAGING and rest != "lock.json" and not rest.startswith("probe-")


def changes_in_store(
    store: Store,
    found: Mapping[str, Stored],
    hashes: Mapping[str, str],
    sizes: Mapping[str, int],
    hash_all: bool,
) -> list[str]:
    """One sentence for each object of a finished run that is missing, is another one, or came into its predictions."""
    sealed = found[MANIFEST].modified.replace(microsecond=0)
    problems = [f"{printable(name)}: missing" for name in sorted(hashes.keys() - found.keys())]
    problems += [
        f"{printable(name)}: not in the manifest"
        for name in sorted(found.keys() - hashes.keys() - {MANIFEST})
        if name.partition("/")[0] == PREDICTIONS or (hash_all and name.partition("/")[0] != STAGING)
    ]
    doubtful = [
        name
        for name in sorted(hashes.keys() & found.keys())
        if hash_all or found[name].modified >= sealed or sizes.get(name) != found[name].size
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = dict(zip(doubtful, pool.map(lambda name: sha256_in(store, name), doubtful), strict=True))
    return problems + [
        f"{printable(name)}: its bytes are not those that were written"
        for name, digest in digests.items()
        if digest != hashes[name]
    ]


def sha256_in(store: Store, name: str) -> str:
    """SHA-256 (hex) of an object's bytes, read as a stream; empty if it has gone."""
    try:
        with store.open(name) as file:
            return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def copy_object(store: Store, found: Stored, path: OwnPath) -> str:
    """Copy this version of an object to a file of ours; returns its SHA-256 (hex).

    Raises:
        ChangedError, FileNotFoundError: it has another version by now, or has gone.
    """
    digest = hashlib.sha256()
    with store.open(found.name, found.version) as source, atomic_write(path) as out:
        while block := source.read(1 << 20):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


class _KeptJournal(Journal):
    """A journal whose entries are in the bucket before they are on this machine."""

    def __init__(self, staging: Staging, run: BucketRun) -> None:
        super().__init__(staging.journal, shapes.JOURNAL)
        self._staging, self._run = staging, run

    def extend(self, entries: Sequence[Mapping[str, Any]], *, is_durable: bool) -> None:
        """Put the entries, and the parts that they are about, into the bucket, then here."""
        if entries:
            self._run.stage(entries, self._staging, len(self.entries))
        super().extend(entries, is_durable=is_durable)


def _entry_of(line: bytes) -> dict[str, Any] | None:
    """The entry in a line of a journal; None if it is damaged."""
    try:
        found = checked_entry(line + b"\n")
        return None if found is None else cast("dict[str, Any]", checked(parse_json(found), shapes.JOURNAL))
    except DocumentError:
        return None


def _plain(version: Version) -> str:
    """An ETag as it is the same in every answer of a store."""
    return (version.e_tag or "").removeprefix("W/").strip('"')


def _mixed(store: Store, name: str) -> OutputError | BusyError:
    return BusyError(
        f"{printable(name)} in {printable(store)} was written by somebody else meanwhile, so the run was not called finished. "
        "Run the same command again: what was scored is kept."
    )
