"""Damaged files and documents, thousands of them: does each end with a documented code, in time, and in little memory?

    python tests/fuzz.py --model BUNDLE                   2,000 inputs of each format, 500 of each document
    python tests/fuzz.py --inputs 200 --only csv parquet
    python tests/fuzz.py --only orc --first 1053 --inputs 1
    python tests/fuzz.py --model BUNDLE --documents 100 --only run/run.json

Every input follows from its number alone, so that one that fails can be made again. They are read in a process of their
own, which is watched: a signal, a fault, more than 20 s or more than 1.5 GB is named with its number. Prints a line for
each kind: how often each exit code came, the longest time, the most memory. Exits with 1 if anything was not as promised.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gzip
import io
import json
import multiprocessing as mp
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import mangling

SECONDS, MEGABYTES = 20, 1500
FORMATS = ("csv", "csv.gz", "tsv", "jsonl", "json", "parquet", "arrow", "orc", "xlsx")
DOCUMENTS = {
    "model/config.json": ("score",),
    "model/tokenizer.json": ("score",),
    "model/tokenizer_config.json": ("score",),
    "model/model.safetensors": ("score",),
    "bundle/batchscore.json": ("score-bundle", "inspect-bundle"),
    "run/run.json": ("again", "inspect", "report", "baseline", "verify"),
    "run/metrics.json": ("again", "inspect", "report", "baseline"),
    "run/_SUCCESS": ("again", "inspect", "report", "baseline", "verify"),
    "run/mismatches.parquet": ("baseline", "inspect"),
    "run/predictions/in.csv": ("baseline",),
    "stopped/plan.json": ("resume",),
    "stopped/journal.jsonl": ("resume",),
}
"""Each file that somebody else may have written, and the commands that read it."""
ENVIRONMENT = {"BATCHSCORE_CACHE": "off", "BATCHSCORE_PRECISION": "fp32"}


class Outcome(NamedTuple):
    """How one input ended: an exit code, or what was not as promised."""

    code: int
    fault: str = ""


# ------------------------------------------------------------------------------------------------------------- inputs


def corpus(kind: str) -> list[bytes]:
    """A few whole files of a format: plain, with everything that it has, and odd."""
    import pandas as pd
    import pyarrow as pa

    plain = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "text": ["A good film.", 'Bad, "bad" film.\nReally.', "x"],
            "label": ["pos", "neg", None],
        }
    )
    rich = pa.table(
        {
            "id": pa.array(["a", "b", None], pa.string()).dictionary_encode(),
            "text": pa.array(["Gr\u00fc\u00dfe \U0001f600", None, " "], pa.large_string()),
            "label": pa.array([1, 0, 1], pa.int8()),
            "when": pa.array([0, 10**15, None], pa.timestamp("us", "UTC")),
            "price": pa.array([1, None, 3], pa.decimal128(20, 2)),
            "tags": pa.array([["x", None], [], None], pa.list_(pa.string())),
            "raw": pa.array([b"\0\xff", b"", None], pa.binary()),
        }
    )  # fmt: skip
    long = pd.DataFrame({"text": [f"Film {k}. " * (k % 7) for k in range(400)], "stars": range(400)})
    return [_file(kind, pa.Table.from_pandas(frame, preserve_index=False) if isinstance(frame, pd.DataFrame) else frame)
            for frame in (plain, rich, long)]  # fmt: skip


def _file(kind: str, table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import orc

    out = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, out, compression="snappy" if len(table) > 3 else "none")
    elif kind == "arrow":
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
    elif kind == "orc":
        plain = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in table.columns
        ]
        orc.write_table(pa.table(plain, names=table.column_names), out)
    elif kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        book.active.append(table.column_names)
        for row in table.to_pylist():
            book.active.append(
                [str(value) if isinstance(value, list | bytes) else _naive(value) for value in row.values()]
            )
        book.save(out)
    else:
        return _as_text(kind, table.to_pandas())
    return out.getvalue()


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if hasattr(value, "tzinfo") else value


def _as_text(kind: str, frame: Any) -> bytes:
    if kind.startswith("json"):
        lines = [json.dumps(row, default=str) for row in frame.to_dict("records")]
        return ("\n".join(lines) if kind == "jsonl" else "[" + ",\n".join(lines) + "]").encode()
    data: bytes = frame.to_csv(index=False, sep="\t" if kind == "tsv" else ",").encode()
    return gzip.compress(data, mtime=0) if kind.endswith("gz") else data


def mangled_file(kind: str, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """A mangled file; of a packed one mostly what is in it, as else a checksum would stop everything at the door."""
    if kind == "csv.gz" and chance.random() < 0.8:
        return gzip.compress(mangling.mangled([gzip.decompress(seed) for seed in seeds], chance), mtime=0)
    if kind == "xlsx" and chance.random() < 0.8:
        return _mangled_zip(chance.choice(seeds), chance)
    in_place = kind in {"parquet", "arrow", "orc"} and chance.random() < 0.8
    return mangling.mangled(seeds, chance, in_place=in_place)


def _mangled_zip(seed: bytes, chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = chance.choice(old.namelist())
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, mangling.mangled([data], chance) if name == chosen else data)
    return out.getvalue()


def read_input(kind: str, number: int, folder: Path, seeds: Sequence[bytes]) -> Outcome:
    """Plan, read, stage, write and count a mangled file."""
    from flow import flow

    from batchscore.formats.answers import answers_of
    from batchscore.formats.output_columns import OutputColumns
    from batchscore.formats.registry import NAMES
    from batchscore.formats.writing import Output, count_rows

    chance = random.Random(f"{kind} {number}")
    path = folder / f"in.{kind}"
    path.write_bytes(mangled_file(kind, seeds, chance))
    target = chance.choice(("same", *NAMES))

    def work() -> Outcome:
        done = flow(folder, path, output_format=target)
        answers = answers_of(done.bundle.task, done.bundle.labels)
        counted = count_rows(done.only, Output(done.plan.files[0], answers, OutputColumns()), target)
        staged = sum(part.batch.num_rows for part in done.staged)
        return Outcome(0, "" if counted == staged else f"{counted} rows were written of {staged}")

    return outcome_of(work)


def outcome_of(action: Callable[[], Outcome]) -> Outcome:
    """What an action returns, or the end that a command has where it raises."""
    from batchscore.errors import BatchscoreError

    try:
        return action()
    except BatchscoreError as error:
        is_plain = all(char.isprintable() or char == "\n" for char in str(error))
        return Outcome(error.exit_code, "" if is_plain else "its message holds control characters")
    except Exception as error:  # noqa: BLE001 - the fault that is looked for
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        return Outcome(1, f"{type(error).__name__} at {where}: {ascii(str(error))[:200]}")


# ---------------------------------------------------------------------------------------------------------- documents


def make_world(folder: Path, model: Path) -> None:
    """A plain folder, a bundle, a finished run, one that was stopped, and the file that they score."""
    from batchscore.errors import StorageError

    (folder / "in.csv").write_text(
        "id,text,label\n1,Good.,POSITIVE\n2,Bad.,NEGATIVE\n3,So so.,NEGATIVE\n", encoding="utf-8"
    )
    os.environ |= ENVIRONMENT
    shutil.copytree(model, folder / "bundle")
    shutil.copytree(model, folder / "model", ignore=shutil.ignore_patterns("batchscore.json"))
    _run(folder, "score", "in.csv", "--model", "bundle", "--output", "run")
    full = mock.patch(
        "batchscore.runs.prediction_building.write_predictions", side_effect=StorageError("the disk is full")
    )
    with full:
        _run(folder, "score", "in.csv", "--model", "bundle", "--output", "stopped")


def _run(folder: Path, *arguments: str) -> int:
    """Call the command in this process, within a folder; return its exit code."""
    from batchscore.cli import main

    options = [] if arguments[0] in {"inspect", "report", "verify"} else ["-q"]
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as said,
    ):
        try:
            main([*arguments, *options])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
            if code == 1:
                raise RuntimeError(said.getvalue()[-300:]) from end
            return code
    return 0


COMMANDS: dict[str, tuple[str, ...]] = {
    "score": ("score", "in.csv", "--model", "model", "--output", "new"),
    "score-bundle": ("score", "in.csv", "--model", "bundle", "--output", "new"),
    "inspect-bundle": ("inspect", "bundle"),
    "again": ("score", "in.csv", "--model", "bundle", "--output", "run"),
    "inspect": ("inspect", "run"),
    "verify": ("verify", "run"),
    "report": ("report", "."),
    "baseline": ("score", "in.csv", "--model", "bundle", "--output", "new", "--baseline", "run"),
    "resume": ("score", "in.csv", "--model", "bundle", "--output", "stopped"),
}


def read_document(name: str, number: int, folder: Path, world: Path) -> Outcome:
    """Mangle one file of a world, and call a command that reads it."""
    chance = random.Random(f"{name} {number}")
    for each in world.iterdir():
        _copy(each, folder / each.name)
    path = (
        next(folder.glob(f"stopped/.staging/*/{Path(name).name}"))
        if name.startswith("stopped")
        else folder / name
    )
    data = path.read_bytes()
    path.write_bytes(_mangled_document(path.name, data, chance))
    if name.startswith("run/") and path.name != "_SUCCESS" and chance.random() < 0.7:
        _list_again(folder / "run", name.removeprefix("run/"))
    command = COMMANDS[chance.choice(DOCUMENTS[name])]
    return outcome_of(lambda: Outcome(_run(folder, *command)))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _mangled_document(name: str, data: bytes, chance: random.Random) -> bytes:
    """A mangled document; mostly with checksums that are right, as whoever means harm would have them."""
    is_sealed = chance.random() < 0.7
    if name == "batchscore.json":
        return (
            _sealed(mangling.mangled_json(data, chance)) if is_sealed else mangling.mangled_json(data, chance)
        )
    if name == "model.safetensors":  # its header is a document
        size = int.from_bytes(data[:8], "little")
        header = mangling.mangled_json(data[8 : 8 + size], chance)
        length = chance.choice((len(header), len(header), len(header), 2**62, 0, size)).to_bytes(8, "little")
        return length + header + data[8 + size :]
    if name in {"plan.json", "journal.jsonl"} and is_sealed:
        lines = data.splitlines(keepends=True)
        at = chance.randrange(len(lines))
        entry = mangling.mangled_json(lines[at][9:-1], chance)
        return b"".join([*lines[:at], b"%08x %b\n" % (zlib.crc32(entry), entry), *lines[at + 1 :]])
    if name.endswith(".json") and name != "plan.json":
        return mangling.mangled_json(data, chance)
    return mangling.mangled([data], chance)


def _sealed(document: bytes) -> bytes:
    """The facts of a bundle with the hash that they say of themselves; as they are where that cannot be."""
    from batchscore.model.bundle_facts import sealed_bytes

    try:
        facts = json.loads(document)
        return sealed_bytes({name: value for name, value in facts.items() if name != "sha256"})
    except (ValueError, RecursionError, AttributeError):
        return document


def _list_again(run: Path, changed: str) -> None:
    """Give a run a manifest that lists a changed file as it is."""
    from batchscore.system.storage import manifest, read_manifest, sha256_of

    hashes = read_manifest(run) | {changed: sha256_of(run / changed)}
    (run / "_SUCCESS").write_bytes(manifest(hashes))


# ----------------------------------------------------------------------------------------------------------- the child

Read = Callable[[str, int, Path, Any], Outcome]


def read_many(told: Connection, read: Read, kind: str, numbers: Sequence[int], given: Any) -> None:
    """In a child: read each input, and tell how it ended, the seconds, and the most memory in megabytes."""
    warnings.simplefilter("ignore")
    os.environ |= ENVIRONMENT
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    told.send(None)  # it has begun
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak
            start = time.monotonic()
            outcome = read(kind, number, Path(folder), given)
            told.send((number, outcome, time.monotonic() - start, _peak()))


def _peak() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Tally:
    """What came of the inputs of one kind."""

    def __init__(self, kind: str, most_megabytes: float = MEGABYTES) -> None:
        self.kind, self._most = kind, most_megabytes
        self.codes: collections.Counter[int] = collections.Counter()
        self.faults: list[str] = []
        self.seconds = self.megabytes = 0.0

    def add(self, number: int, outcome: Outcome, seconds: float, megabytes: float) -> None:
        """Count one."""
        self.codes[outcome.code] += 1
        self.seconds, self.megabytes = max(self.seconds, seconds), max(self.megabytes, megabytes)
        fault = outcome.fault or (f"it took {megabytes:.0f} MB" if megabytes > self._most else "")
        if fault:
            self.faults.append(f"{self.kind} {number}: {fault}")

    def __str__(self) -> str:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return f"{self.kind:28} {codes}; at most {self.seconds:.1f} s, {self.megabytes:.0f} MB; {len(self.faults)} faults"


def watched(
    read: Read,
    kind: str,
    numbers: Sequence[int],
    given: Any,
    seconds: float = SECONDS,
    megabytes: float = MEGABYTES,
) -> Tally:
    """Read inputs in children; one that dies or is silent for too long costs its input alone."""
    tally, left = Tally(kind, megabytes), list(numbers)
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["flow"])
    while left:
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=read_many, args=(there, read, kind, left, given), daemon=True)
        child.start()
        there.close()
        try:
            here.recv()
            while left and here.poll(seconds):
                tally.add(*here.recv())
                left.pop(0)
            if left:
                tally.add(left.pop(0), Outcome(1, f"no end after {seconds:g} s"), seconds, 0)
        except EOFError:
            child.join()
            if left:
                tally.add(left.pop(0), Outcome(1, f"the process ended with {child.exitcode}"), 0, 0)
        finally:
            child.kill()
            child.join()
            here.close()
    return tally


def main() -> int:
    """Parse, read, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[*FORMATS, *DOCUMENTS])
    parser.add_argument("--model", type=Path, help="a small bundle, for the documents")
    asked = parser.parse_args()
    if unknown := set(asked.only) - {*FORMATS, *DOCUMENTS}:
        parser.error(f"--only {min(unknown)}: there are {', '.join((*FORMATS, *DOCUMENTS))}")
    if asked.model is None and not set(asked.only) <= set(FORMATS):
        parser.error("documents are read with a model: add --model BUNDLE, or name formats with --only")
    faults = []
    with tempfile.TemporaryDirectory() as place:
        for kind in asked.only:
            if kind in FORMATS:
                tally = watched(
                    read_input, kind, range(asked.first, asked.first + asked.inputs), corpus(kind)
                )
            else:
                world = Path(place) / "world"
                if not world.exists():
                    world.mkdir()
                    make_world(world, asked.model)
                tally = watched(read_document, kind, range(asked.first, asked.first + asked.documents), world)
            print(tally, *tally.faults, sep="\n  ", flush=True)  # noqa: T201
            faults += tally.faults
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
