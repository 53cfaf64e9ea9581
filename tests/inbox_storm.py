"""A drop folder under fire: slow writers, calls at random moments, kills of whole process groups. Takes minutes.

    python tests/inbox_storm.py --files 200 --scale 0.1
    python tests/inbox_storm.py --many 1000

Each file holds reviews of its own, is written in pieces with pauses of 0.1 to 20 s (times ``--scale``), and arrives in one
of the ways that people use. In the end: a finished run for each, of its whole content, and no other. With ``--many``: that
many small files, one call, the model loaded once. Prints figures; exits with 1 if anything is not as promised.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from batchscore import samples
from batchscore.errors import BatchscoreError
from batchscore.runs.inspection import verify
from batchscore.system.storage import STAGING

COMMAND = Path(sys.executable).with_name("batchscore")
WAYS = ("held open", "appended", "renamed", "part", "done")
SUFFIXES = (".csv", ".parquet", ".jsonl", ".csv.gz")
PAUSES = 0.1, 20.0
ENDED_WELL = {0, 75, 99, -signal.SIGKILL}


class Upload(NamedTuple):
    """One file that somebody will write: its name, content, ids of its rows, and how it arrives."""

    name: str
    content: bytes
    ids: list[str]
    way: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Storm:
    """A folder with a model, an inbox and an output; what was promised and did not hold."""

    folder: Path
    chance: random.Random
    scale: float
    problems: list[str] = field(default_factory=list)
    finished: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Inode and time of each ``_SUCCESS`` when it was first seen."""
    ends: collections.Counter[int] = field(default_factory=collections.Counter)
    killed_while: collections.Counter[str] = field(default_factory=collections.Counter)

    @property
    def inbox(self) -> Path:
        return self.folder / "in"

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def settle(self) -> float:
        """Longer than the longest pause of a writer."""
        return PAUSES[1] * self.scale * 1.5 + 1

    def claim(self, holds: bool, what: str) -> None:
        """Note a promise that does not hold."""
        if not holds:
            self.problems.append(what)
            sys.stderr.write(f"BROKEN: {what}\n")

    def call(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the installed command, in a process group of its own."""
        places = [self.inbox, "--model", self.folder / "model", "--output", self.output]
        facts = ["--settle", f"{self.settle}", "--skip-empty", "--json", *options]
        command = [str(COMMAND), "inbox", *map(str, places), *facts]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


# --- writers ----------------------------------------------------------------------------------------------------------


def uploads(count: int, again: int, chance: random.Random) -> list[Upload]:
    """``count`` files of different content, and ``again`` whose content has come under another name."""
    reviews = [row["text"] or "Nothing." for row in samples.rows()]
    made = []
    for number in range(count):
        rows = chance.randint(1, 60)
        ids = [f"{number}-{row}" for row in range(rows)]
        frame = pd.DataFrame({"id": ids, "text": [chance.choice(reviews) for _ in ids]})
        suffix = chance.choice(SUFFIXES)
        made.append(Upload(f"{number:04}{suffix}", encoded(frame, suffix), ids, chance.choice(WAYS)))
    for each in chance.sample(made, again):
        made.insert(chance.randrange(len(made)), each._replace(name=f"again-{each.name}"))
    return made


def encoded(frame: pd.DataFrame, suffix: str) -> bytes:
    """The bytes of a file of these rows."""
    out = io.BytesIO()
    if suffix == ".parquet":
        frame.to_parquet(out)
    elif suffix == ".jsonl":
        frame.to_json(out, orient="records", lines=True)
    else:
        frame.to_csv(out, index=False, compression="gzip" if suffix.endswith(".gz") else None)
    return out.getvalue()


def write(upload: Upload, inbox: Path, scale: float, chance: random.Random) -> None:
    """Copy a file slowly into the inbox, as its writer does."""
    final = inbox / upload.name
    start = {
        "renamed": inbox.with_name(f"aside-{upload.name}"),
        "part": final.with_name(f"{final.name}.part"),
    }
    path = start.get(upload.way, final)
    if upload.way == "held open":
        with path.open("wb", buffering=0) as file:
            for piece in slowly(upload.content, scale, chance):
                file.write(piece)
        return
    for piece in slowly(upload.content, scale, chance):
        with path.open("ab") as file:
            file.write(piece)
    if upload.way == "done":
        final.with_name(f"{final.name}.done").touch()
    elif path != final:
        path.rename(final)


def slowly(content: bytes, scale: float, chance: random.Random) -> Iterator[bytes]:
    """The content in two to five pieces with pauses between them; short pauses come more often than long ones."""
    cuts = sorted(chance.randrange(len(content) + 1) for _ in range(chance.randint(1, 4)))
    shortest, longest = PAUSES
    for begin, end in zip([0, *cuts], [*cuts, len(content)], strict=True):
        yield content[begin:end]
        if end < len(content):
            time.sleep(shortest * (longest / shortest) ** chance.random() * scale)


# --- calls and kills --------------------------------------------------------------------------------------------------


def one_call(storm: Storm, longest: float) -> None:
    """One call of the command, or two at once; half of them are killed with all their children."""
    chance = storm.chance
    marks = ["--require-done"] if chance.random() < 0.1 else []
    calls = [storm.call(*marks) for _ in range(2 if chance.random() < 0.2 else 1)]
    for call in calls:
        if chance.random() < 0.5:
            kill_at_random(storm, call, longest)
        code = call.wait()
        storm.ends[code] += 1
        storm.claim(code in ENDED_WELL, f"a call ended with {code}")
    note_finished(storm)


def kill_at_random(storm: Storm, call: subprocess.Popen[bytes], longest: float) -> None:
    """Kill a process group: at any moment, or shortly after it has begun to score."""
    chance, ends = storm.chance, time.monotonic() + longest
    if chance.random() < 0.3:
        ends = time.monotonic() + chance.uniform(0, longest)
        while call.poll() is None and time.monotonic() < ends:
            time.sleep(0.01)
    else:
        while call.poll() is None and time.monotonic() < ends and not staged(storm):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.5) ** 2)
    if call.poll() is None:
        storm.killed_while["a file was scored" if staged(storm) else "none was"] += 1
        os.killpg(call.pid, signal.SIGKILL)


def staged(storm: Storm) -> bool:
    """Whether a run is on its way."""
    return any(storm.output.glob(f"*/*/{STAGING}"))


def note_finished(storm: Storm) -> None:
    """A run that has been finished must never be written again."""
    for path in storm.output.glob("*/*/_SUCCESS"):
        facts = path.stat()
        now = facts.st_ino, facts.st_mtime_ns
        storm.claim(storm.finished.setdefault(path, now) == now, f"{path.parent.name} was scored again")


def left(storm: Storm) -> list[str]:
    """What lies in the inbox itself, hidden names left out."""
    return sorted(path.name for path in storm.inbox.iterdir() if path.is_file() and path.name[0] != ".")


# --- the end ----------------------------------------------------------------------------------------------------------


def check(storm: Storm, made: list[Upload]) -> dict[str, int]:
    """Hold what stands there in the end against what was written."""
    names = {path.name for path in (storm.inbox / "done").iterdir() if not path.name.endswith(".done")}
    storm.claim(names == {each.name for each in made}, f"done/ differs: {names ^ {e.name for e in made}}")
    storm.claim(not (storm.inbox / "failed").exists(), "failed/ holds something")
    runs: dict[str, list[Path]] = collections.defaultdict(list)
    for path in storm.output.glob("*/*"):
        runs[path.name.rpartition("-")[2]].append(path)
    contents = {each.sha256: each for each in made}
    strangers = set(runs) - {digest[:16] for digest in contents}
    storm.claim(not strangers, f"runs of content that nobody wrote as a whole: {sorted(strangers)}")
    told = {"whole runs": 0, "rows": 0}
    for digest, upload in contents.items():
        folders = runs[digest[:16]]
        storm.claim(len(folders) == 1, f"{upload.name}: {len(folders)} runs")
        if folders and check_run(storm, folders[0], upload):
            told["whole runs"] += 1
            told["rows"] += len(upload.ids)
    return told


def check_run(storm: Storm, run: Path, upload: Upload) -> bool:
    """One run: finished, as it was written, of the whole content, every row in its place."""
    before = len(storm.problems)
    try:
        verify(run)
        facts = json.loads((run / "run.json").read_bytes())
        (name,) = (path.name for path in (run / "predictions").iterdir())
        scored = read(run / "predictions" / name)
        storm.claim(facts["files"][0]["sha256"] == upload.sha256, f"{upload.name}: scored from other bytes")
        storm.claim(scored == upload.ids, f"{upload.name}: {len(scored)} of {len(upload.ids)} rows")
        storm.claim(not (run / STAGING).exists(), f"{upload.name}: staging is left")
    except (BatchscoreError, OSError, ValueError) as error:
        storm.claim(False, f"{upload.name}: {error}")
    return len(storm.problems) == before


def read(path: Path) -> list[str]:
    """The ids of a file of predictions."""
    if path.suffix == ".parquet":
        return list(pd.read_parquet(path)["id"])
    if path.suffix == ".jsonl":
        return [json.loads(line)["id"] for line in path.read_text("utf-8").splitlines()]
    return list(pd.read_csv(path, dtype=str)["id"])


# --- the two stages ---------------------------------------------------------------------------------------------------


def under_fire(storm: Storm, count: int, writers: int) -> str:
    """Writers and calls at once, then calls until nothing is left."""
    made = uploads(count, count // 20, storm.chance)
    queues = [made[number::writers] for number in range(writers)]

    def work(queue: list[Upload], seed: int) -> None:
        chance = random.Random(seed)
        for upload in queue:
            write(upload, storm.inbox, storm.scale, chance)

    threads = [
        threading.Thread(target=work, args=facts) for facts in zip(queues, range(writers), strict=True)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or left(storm):
        one_call(storm, longest=30)
        sys.stderr.write(
            f"{time.monotonic() - started:.0f} s: {len(storm.finished)} runs, {len(left(storm))} left\n"
        )
        time.sleep(storm.chance.uniform(0, 1))
    told = check(storm, made)
    kills = ", ".join(f"{number} while {what}" for what, number in sorted(storm.killed_while.items()))
    ends = ", ".join(f"{code}: {number}" for code, number in sorted(storm.ends.items()))
    ways = collections.Counter(each.way for each in made)
    return (
        f"{len(made)} files ({len(made) - count} of them with content that had come before; {dict(ways)}), "
        f"{storm.ends.total()} calls by exit code ({ends}), {storm.ends[-9]} killed ({kills}): "
        f"{told['whole runs']} whole runs of {count}, {told['rows']} rows ({time.monotonic() - started:.0f} s)"
    )


def many(storm: Storm, count: int) -> str:
    """Small files, all there from the start, and one call."""
    made = []
    for number in range(count):
        ids = [f"{number}-{row}" for row in range(3)]
        frame = pd.DataFrame({"id": ids, "text": [f"Review {each}." for each in ids]})
        made.append(Upload(f"{number:04}.csv", encoded(frame, ".csv"), ids, "done"))
        (storm.inbox / made[-1].name).write_bytes(made[-1].content)
        (storm.inbox / f"{made[-1].name}.done").touch()
    started, clock = time.time(), time.monotonic()
    code = storm.call("-v").wait()
    seconds = time.monotonic() - clock
    storm.claim(code == 0, f"the call ended with {code}")
    loads = (storm.folder / "log").read_text("utf-8").count("model loaded")
    storm.claim(loads == 1, f"the model was loaded {loads} times")
    check(storm, made)
    ends = sorted(path.stat().st_mtime for path in storm.output.glob("*/*/_SUCCESS"))
    each = (ends[-1] - ends[0]) / max(1, len(ends) - 1)
    return (
        f"{count} files: {len(ends)} runs in {seconds:.1f} s, the first after {ends[0] - started:.1f} s, "
        f"{each * 1000:.0f} ms a file after it; the model was loaded {loads} times"
    )


def main() -> int:
    """Run what was asked for and print a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, count in (("files", 200), ("writers", 3), ("many", 0), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--scale", type=float, default=0.1, help="of the pauses of 0.1 to 20 s")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), random.Random(asked.seed), asked.scale)
        storm.inbox.mkdir()
        maker = "import sys, pathlib, kill_runs; kill_runs.make_model(pathlib.Path(sys.argv[1]), 'tiny')"
        subprocess.run(
            [sys.executable, "-c", maker, storm.folder / "model"], check=True, cwd=Path(__file__).parent
        )
        told = many(storm, asked.many) if asked.many else under_fire(storm, asked.files, asked.writers)
        sys.stdout.write(f"{told}\n{len(storm.problems)} broken promises\n")
        if storm.problems:
            sys.stderr.write((storm.folder / "log").read_text("utf-8")[-4000:])
        return 1 if storm.problems else 0


if __name__ == "__main__":
    sys.exit(main())
