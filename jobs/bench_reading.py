"""How fast files are read: megabytes in a second of CPU time, in turns with the standard library's ``csv.reader``.

    python jobs/bench_reading.py                            # sample reviews, and rows of 28 bytes
    python jobs/bench_reading.py --data reviews.parquet --rounds 5

``parse`` makes records with their exact bytes, ``read`` also texts, labels and parts, as a run does when it plans. The
figures are the best of the rounds; what to compare between two machines is the ratio to ``csv.reader``.

    python jobs/bench_reading.py --plan --small 20000       # CPU time and bytes read to find, plan and read whole inputs

``find``, ``plan`` and ``read`` are what a run does with its inputs, each in microseconds of CPU time a row (processes that it
starts included) and in bytes read per byte of the inputs; ``again`` is to find them unchanged for a run that has finished.
"""

from __future__ import annotations

import argparse
import csv
import io
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from batchscore import samples
from batchscore.config import ReadSettings, ScoreSettings
from batchscore.formats import csv as csv_format
from batchscore.formats import delimited
from batchscore.formats.inputs import find_files, recognise
from batchscore.formats.reading import read
from batchscore.formats.source import Source
from batchscore.model.bundle import Bundle
from batchscore.model.heads import Activation, Head
from batchscore.records import ColumnChoice, Task
from batchscore.runs.planning import make_plan, read_parts

_SHORT_ROWS = 400_000
_LEAST_BYTES = 8_000_000
COLUMNS = ColumnChoice("text", "label", "id")


def files(data: Path | None, folder: Path) -> Iterator[Path]:
    """Reviews and short rows as CSV, each with the columns id, text and label."""
    if data is None:
        reviews = pd.DataFrame(samples.load("test"))
    else:
        reviews = pd.read_parquet(data) if data.suffix == ".parquet" else pd.read_csv(data)
    text = reviews[["id", "text", "label"]].to_csv(index=False)
    header, _, rows = text.partition("\n")
    times = -(-_LEAST_BYTES // len(rows)) if data is None else 1
    path = folder / "reviews.csv"
    path.write_text(f"{header}\n{rows * times}", encoding="utf-8")
    yield path
    path = folder / "short.csv"
    lines = (f"{k % 100_000:06d},so good {k % 97:02d},POSITIVE\n" for k in range(_SHORT_ROWS))
    path.write_text("id,text,label\n" + "".join(lines), encoding="utf-8")
    yield path


def with_reader(source: Source) -> int:
    """The standard library's parser, which keeps neither bytes nor places."""
    with source.path.open(encoding="utf-8", newline="") as file:
        return sum(1 for _ in csv.reader(file)) - 1


def parse(source: Source) -> int:
    """Records alone."""
    layout = csv_format.describe(source, ReadSettings())
    start, dialect = layout.details["offset"], csv_format.dialect_of(layout)
    stream = io.BytesIO(source.path.read_bytes()[start:])
    blocks = delimited.read_records(
        stream, dialect, len(layout.columns), offset=start, line=layout.details["line"]
    )
    return sum(map(len, blocks))


def read_whole(source: Source) -> int:
    """As a run reads its inputs when it plans."""
    settings = ReadSettings()
    return sum(
        rows.rows_in for rows in read(source, csv_format.describe(source, settings), COLUMNS, settings)
    )


WAYS: dict[str, Callable[[Source], int]] = {"csv.reader": with_reader, "parse": parse, "read": read_whole}


def seconds_of(way: Callable[[Source], int], source: Source) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    way(source)
    return time.process_time() - start


class Meter:
    """CPU seconds, wall seconds and bytes read, since it was made or asked last."""

    def __init__(self) -> None:
        self._last = self._now()

    @staticmethod
    def _now() -> tuple[float, float, int]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = time.process_time() + children.ru_utime + children.ru_stime
        return cpu, time.monotonic(), int(Path("/proc/self/io").read_text().split()[1])

    def lap(self) -> tuple[float, float, int]:
        """Since the last lap; what processes read that were started is not counted."""
        last, self._last = self._last, self._now()
        cpu, wall, read = (now - then for now, then in zip(self._last, last, strict=True))
        return cpu, wall, int(read)


def inputs_to_plan(data: Path | None, folder: Path, small: int) -> Iterator[Path]:
    """The same reviews as CSV, JSON Lines and Parquet, and in ``small`` files of five rows."""
    csv_path = next(files(data, folder))
    reviews = pd.read_csv(csv_path)
    yield csv_path
    reviews.to_json(folder / "reviews.jsonl", orient="records", lines=True)
    yield folder / "reviews.jsonl"
    reviews.to_parquet(folder / "reviews.parquet")
    yield folder / "reviews.parquet"
    if small:
        (folder / "small").mkdir()
        for number in range(small):
            rows = reviews.iloc[[(5 * number + k) % len(reviews) for k in range(5)]]
            rows.to_csv(folder / "small" / f"{number:06d}.csv", index=False)
        yield folder / "small"


def plan_and_read(path: Path, run: Path) -> None:
    """Measure one input, and print."""
    settings = ScoreSettings((str(path),), "none", run)
    head = Head(Task.SINGLE_LABEL, ("NEGATIVE", "POSITIVE"), Activation.SOFTMAX)
    bundle = Bundle(Path("none"), head, 512, 1.0, "head", None, {}, "0" * 64)
    time.sleep(2.1)  # a file that was written just now is hashed again
    meter, laps = Meter(), {}
    found = find_files(settings.inputs, None, run)
    laps["find"] = meter.lap()
    plan = make_plan(found, bundle, settings, io.BytesIO())
    laps["plan"] = meter.lap()
    for _ in read_parts(plan, plan.parts, settings.read):
        pass
    laps["read"] = meter.lap()
    again = find_files(settings.inputs, None, run)
    recognise(again, [file.noted for file in found])
    hashes = [file.sha256 for file in again]
    laps["again"] = meter.lap()
    size = sum(file.size for file in plan.files)
    print(f"{path.name}: {len(hashes)} files, {plan.rows} rows, {size / 1e6:.1f} MB")
    for name, (cpu, wall, read_bytes) in laps.items():
        per_row = cpu / plan.rows * 1e6
        print(
            f"  {name:6} {per_row:7.1f} us of CPU a row, {wall:6.2f} s, {read_bytes / size:5.2f} bytes read a byte"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="Parquet or CSV with id, text and label (default: samples)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plan", action="store_true", help="measure what a run does with its inputs")
    parser.add_argument("--small", type=int, default=0, help="with --plan: so many small files as well")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.plan:
            for path in inputs_to_plan(asked.data, Path(folder), asked.small):
                plan_and_read(path, Path(folder) / "run")
            return
        for path in files(asked.data, Path(folder)):
            (found,) = find_files((str(path),), None, Path(folder) / "run")
            best = dict.fromkeys(WAYS, float("inf"))
            for _ in range(asked.rounds):
                for name, way in WAYS.items():
                    best[name] = min(best[name], seconds_of(way, found.source))
            megabytes = path.stat().st_size / 1e6
            for name, seconds in best.items():
                ratio = best["csv.reader"] / seconds
                print(f"{path.name:12} {name:11} {megabytes / seconds:7.1f} MB/s, {ratio:.2f} of csv.reader")


if __name__ == "__main__":
    main()
