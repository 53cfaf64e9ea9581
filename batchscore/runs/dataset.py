"""A data set that runs are appended to: one folder of Parquet files, read as one table, where each run puts its own.

A file's name begins with the night and the time at which its run finished, so that names sort as nights do, and has the run's
mark in it: the same run, repeated or made again, finds its file there and adds nothing, or puts its own new content in its
place. A file appears whole or not at all, and no file of another run is ever replaced.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from batchscore.config import REPORT_ONLY, ScoreSettings, fingerprint
from batchscore.errors import DataError, OutputError, UsageError, printable
from batchscore.formats.exact import open_exact
from batchscore.formats.registry import DATA_SET, ENTRIES, suffix_of
from batchscore.formats.source import Source, reading
from batchscore.formats.writing import Output, write_predictions
from batchscore.runs.folder import PREDICTIONS, is_finished, prediction_names
from batchscore.system.own_paths import AnyPath, OwnPath, own_folder, readable
from batchscore.system.storage import atomic_write, make_folder, read_manifest, sha256_of
from batchscore.system.terminal import NOTICE

if TYPE_CHECKING:
    import pyarrow as pa

_LOG = logging.getLogger(__name__)
_SUFFIX = suffix_of(DATA_SET)
_MARK_DIGITS = 16


class Appended(NamedTuple):
    """The files of a run in a data set."""

    files: tuple[Path, ...]
    before: tuple[Path, ...]
    """Those that were there already, and stayed as they were."""


class DataSet:
    """The folder; it need not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def refuse_misplaced(self, run: Path) -> None:
        """Refuse a folder that is a run's, or lies in one, or has this run in it.

        Raises:
            UsageError: names the option.
        """
        here, there = self._folder.resolve(), run.resolve()
        if here == there or here.is_relative_to(there) or there.is_relative_to(here):
            raise UsageError(
                f"--append-to {printable(self._folder)} and --output {printable(run)} must not lie in one another: whoever reads "
                "the data set would find the run's own files in it."
            )
        if is_finished(self._folder):
            raise UsageError(
                f"--append-to {printable(self._folder)} holds a run, and no data set. Name another folder."
            )
        if self._folder.exists() and not self._folder.is_dir():
            raise UsageError(f"--append-to {printable(self._folder)} is no folder.")

    def refuse_unlike(self, outputs: Sequence[Output], output_format: str) -> None:
        """Refuse predictions that are not as the files that are there: of another format, or with other columns.

        Raises:
            DataError: names the file and the first column that differs, and what helps.
        """
        for output in outputs:
            _refuse_format(output.file.format if output_format == "same" else output_format, output.file.name)
        self._refuse_columns(
            (output.file.name, _schema_as_written(output, output_format)) for output in outputs
        )

    def _refuse_columns(self, found: Iterable[tuple[str, pa.Schema]]) -> None:
        """Refuse predictions, by the names of their inputs, whose columns are not those of the newest file, nor of one another."""
        newest = max(self._files(), default=None)  # what was appended had the columns of the newest then
        wanted = None if newest is None else (printable(newest), _schema_of(newest))
        for name, schema in found:
            wanted = wanted or (f"those of {printable(name)}", schema)
            if difference := _difference(wanted[1], schema):
                raise DataError(
                    f"The predictions of {printable(name)} have other columns than {wanted[0]}, and whoever reads the data set "
                    f"{printable(self._folder)} needs the same in every file: {difference}. Choose them with --keep-columns, "
                    "--rename or --probabilities, or name another --append-to."
                )

    def _files(self, end: str = "") -> list[OwnPath]:
        """Its files, but hidden ones, which readers leave out too."""
        place = OwnPath(self._folder)
        names = place.names() if self._folder.is_dir() else ()
        return [
            place / name for name in names if name.endswith(end + _SUFFIX) and not name.startswith((".", "_"))
        ]

    def append(self, run: AnyPath, facts: Mapping[str, Any], *, replace: bool) -> Appended:
        """Put the prediction files of a finished run there, unless they are; says on stderr what it did.

        With ``replace`` the run's own files of an earlier making, with another content, are replaced, each at once.

        Raises:
            DataError: as :meth:`refuse_unlike`, or a prediction file is not as it was written.
            OutputError: the folder cannot be made, or a file of this run is there with another content, without ``replace``.
        """
        run = own_folder(run)
        kind, hashes = facts["options"]["output_format"], read_manifest(run)
        names = prediction_names([file["name"] for file in facts["files"]], kind)
        files = [
            (number, file, f"{PREDICTIONS}/{name}")
            for number, (file, name) in enumerate(zip(facts["files"], names, strict=True))
            if file["rows"] > file["rejects"]
        ]
        for _, file, _ in files:
            _refuse_format(file["format"] if kind == "same" else kind, file["name"])
        self._refuse_columns((file["name"], _schema_of(run / key)) for _, file, key in files)
        make_folder(self._folder, "Name another --append-to.")
        begin, mark = _time_of(facts), _mark_of(facts)
        there, before = [], []
        for number, _, key in files:
            end = f"_{mark}_{number:05}"
            earlier = next(iter(self._files(end)), None)
            there.append(earlier or OwnPath(self._folder) / f"{begin}{end}{_SUFFIX}")
            if earlier is not None and sha256_of(earlier) == hashes[key]:
                before.append(earlier)
                _LOG.log(NOTICE, "in the data set already, so nothing is appended: %s", printable(earlier))
                continue
            if earlier is not None and not replace:
                raise OutputError(
                    f"{printable(earlier)} is named as this run's file, and has another content. Take it away, or name another "
                    "--append-to; or score again with --force to replace it."
                )
            _put(run / key, hashes[key], there[-1])
            said = "replaced in the data set" if earlier else "appended to the data set"
            _LOG.log(NOTICE, "%s: %s", said, printable(there[-1]))
        return Appended(tuple(each.path for each in there), tuple(each.path for each in before))


def _put(path: OwnPath, digest: str, final: OwnPath) -> None:
    """Copy one file whose SHA-256 is known to its place, at once."""
    with path.open_read() as source, atomic_write(final) as out:
        if _copied(source, out) != digest:
            raise DataError(
                f"{printable(path)} is not as it was written, so it was not appended to the data set. Score again with --force."
            )


def _copied(source: IO[bytes], out: IO[bytes]) -> str:
    """Copy, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(2**20):
        digest.update(block)
        out.write(block)
    return digest.hexdigest()


def _time_of(facts: Mapping[str, Any]) -> str:
    """The night of a run, and when it finished (UTC), as they sort: ``2026-11-26_20261127T013000Z``."""
    finished = datetime.datetime.fromisoformat(facts["finished"])
    night = facts.get("date") or finished.date().isoformat()
    return f"{night}_{finished.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}"


def _mark_of(facts: Mapping[str, Any]) -> str:
    """What two makings of the same run have in common: its night, if it is of one, its inputs, model and options.

    Unlike the fingerprint it has no version of a library in it, nor what is only about the report.
    """
    chosen = {name: value for name, value in facts["options"].items() if name not in REPORT_ONLY}
    defaults = ScoreSettings(inputs=(), model="", output=Path()).part_options()
    return fingerprint(
        {
            "night": facts.get("date"),
            "inputs": [
                [file[name] for name in ("name", "sha256", "format", "compression")]
                for file in facts["files"]
            ],
            "model": facts["model"]["fingerprint"],
            "options": _differing(chosen, json.loads(json.dumps(defaults))),
        }
    )[:_MARK_DIGITS]


def _differing(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not as by default; so one that a later version brings does not count until it is used."""
    return {
        name: _differing(value, defaults.get(name) or {}) if isinstance(value, dict) else value
        for name, value in options.items()
        if value != defaults.get(name)
    }


def _refuse_format(kind: str, name: str) -> None:
    if kind != DATA_SET:
        raise DataError(
            f"--append-to makes a folder of {ENTRIES[DATA_SET].title} files, and the predictions of {printable(name)} are "
            f"{ENTRIES[kind].title}. Add --output-format {DATA_SET}."
        )


def _schema_of(path: AnyPath) -> pa.Schema:
    with readable(path) as name:
        source = Source(name, DATA_SET, "")
        with reading(source), open_exact(source) as opened:
            return opened.schema


def _schema_as_written(output: Output, output_format: str) -> pa.Schema:
    """The schema of a prediction file as it is read back, from one without rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"empty{_SUFFIX}"
        with path.open("w+b") as out:
            write_predictions((), output, output_format, out)
        return _schema_of(path)


def _difference(wanted: pa.Schema, found: pa.Schema) -> str:
    """The first difference in words; empty if there is none."""
    if lacking := [name for name in wanted.names if name not in found.names]:
        return f"there is no {printable(lacking[0])}"
    if strange := [name for name in found.names if name not in wanted.names]:
        return f"{printable(strange[0])} is new"
    if wanted.names != found.names:
        place = next(
            k for k, pair in enumerate(zip(wanted.names, found.names, strict=False)) if len(set(pair)) > 1
        )
        return f"{printable(found.names[place])} stands where {printable(wanted.names[place])} does"
    for one, other in zip(wanted, found, strict=True):
        if one.type != other.type:
            return f"{printable(one.name)} is {one.type} there and {other.type} here"
    return ""


def refuse_unappendable(settings: ScoreSettings, outputs: Sequence[Output]) -> None:
    """Refuse a run whose predictions could not be appended afterwards; nothing without ``append_to``.

    Raises:
        UsageError, DataError: as :class:`DataSet` has them.
    """
    if settings.append_to is not None:
        if settings.partition_by is not None:
            raise UsageError(
                "--append-to puts each input's predictions into the data set as one file, and --partition-by divides them. Give "
                "one of the two."
            )
        data_set = DataSet(settings.append_to)
        data_set.refuse_misplaced(settings.output)
        data_set.refuse_unlike(
            [output for output in outputs if output.file.rows > output.file.rejects], settings.output_format
        )
