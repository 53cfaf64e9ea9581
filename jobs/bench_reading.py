"""How fast files are read: megabytes in a second of CPU time, in turns with the standard library's ``csv.reader``.

    python jobs/bench_reading.py                            # sample reviews, and rows of 28 bytes
    python jobs/bench_reading.py --data reviews.parquet --rounds 5

``parse`` makes records with their exact bytes, ``read`` also texts, labels and parts, as a run does when it plans. The
figures are the best of the rounds; what to compare between two machines is the ratio to ``csv.reader``.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from batchscore import samples
from batchscore.config import ReadSettings
from batchscore.formats import csv as csv_format
from batchscore.formats import delimited
from batchscore.formats.inputs import find_files
from batchscore.formats.reading import read
from batchscore.formats.source import Source
from batchscore.records import ColumnChoice

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="Parquet or CSV with id, text and label (default: samples)")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
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
