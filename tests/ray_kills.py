"""Runs on a Ray cluster of one-core nodes, of which an actor, a node or the driver is killed: the same bytes, or 75 with words?

    python tests/ray_kills.py BUNDLE ROWS.parquet --kills 20 [--kind actor|node|driver] [--spare 0|1]

Each is killed at a random moment after two more shards were journalled; a run that ends with 75, or whose driver was killed, is started
again. With ``--spare 1`` there is a node more than the run uses. ``--least 2`` wants two actors, so that a run that loses a node
without a spare one has to wait, or end with 75. A node that was killed comes back when the next one is killed, or the run has ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_RUN = """
import sys
from pathlib import Path
from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.runs.run import score
from batchscore.system.terminal import Logs, Progress, boundary, set_up_logs

rows, bundle, output, engine, least, most, wait = sys.argv[1:]
set_up_logs(Logs(0, False))
compute = ComputeSettings(
    device="cpu", precision="fp32", workers=int(most), least_workers=int(least), wait_for_workers=float(wait)
)
settings = ScoreSettings((rows,), bundle, Path(output), engine=engine, read=ReadSettings(part_rows=25), compute=compute)
with boundary():
    score(settings, lambda total: Progress(total, quiet=True))
"""
_WAIT = 90.0
"""Seconds that a run waits for actors."""
_HANG = 60.0
"""Seconds without anything journalled, or an end, that count as a hang."""


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Kill, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("rows")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kind", choices=("actor", "node", "driver"))
    parser.add_argument("--spare", type=int, choices=(0, 1))
    parser.add_argument("--least", default="1")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds = [asked.kind] if asked.kind else ["actor", "node", "driver"]
    spares = [0, 1] if asked.spare is None else [asked.spare]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _run(asked, work / "local", "local").communicate()
        expected = _bytes(work / "local")
        for spare in spares:
            with _Nodes(2 + spare) as nodes:
                for kind in kinds:
                    _series(asked, work, nodes, kind, spare, expected)


def _series(
    asked: argparse.Namespace, work: Path, nodes: _Nodes, kind: str, spare: int, expected: dict[str, bytes]
) -> None:
    draw = random.Random(f"{asked.seed} {kind} {spare}")
    kills, different, runs = 0, 0, 0
    longest, codes = 0.0, collections.Counter[int]()
    log = work / "ray.log"
    log.unlink(missing_ok=True)
    while kills < asked.kills:
        output = work / "ray"
        shutil.rmtree(output, ignore_errors=True)
        code = -1
        while code != 0 and codes.total() < 4 * asked.kills:
            process = _run(asked, output, "ray")
            while process.poll() is None and kills < asked.kills:
                longest = max(longest, _until(process, output, _journalled(output) + 2))
                time.sleep(draw.uniform(0, 2))
                if process.poll() is None:
                    kills += nodes.kill(kind, process, draw)
            longest = max(longest, _until(process, output, None))
            code = process.returncode
            codes[code] += 1
            nodes.complete()
        runs += 1
        is_same = code == 0 and _bytes(output) == expected
        different += not is_same
        _say(f"  {kind}, spare {spare}: after {kills} kills codes {dict(codes)}, same {is_same}")
    said = log.read_text()
    _say(
        f"{kind}, spare {spare}: {kills} kills ({said.count(' died')} deaths said), {runs} runs, {different} with other bytes, codes "
        f"{dict(codes)}, longest stillness {longest:.0f} s",
    )
    for line in sorted(
        {line[:230] for line in said.splitlines() if line.startswith(("error:", "Traceback"))}
    ):
        _say(f"    {line}")


def _run(asked: argparse.Namespace, output: Path, engine: str) -> subprocess.Popen[bytes]:
    least = asked.least if engine == "ray" else "1"
    arguments = [asked.rows, asked.bundle, str(output), engine, least, "2", str(_WAIT)]
    with output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-c", _RUN, *arguments], stderr=log)


def _until(process: subprocess.Popen[bytes], output: Path, shards: int | None) -> float:
    """Wait for so many shards, or the end; returns the longest time in which nothing was journalled."""
    last, seen, longest = time.monotonic(), 0, 0.0
    while process.poll() is None:
        found = _journalled(output)
        if found != seen:
            last, seen = time.monotonic(), found
        longest = max(longest, time.monotonic() - last)
        if shards is not None and found > shards:
            break
        if longest > 3 * _HANG:
            _say(f"    hangs: {process.pid}")
            process.kill()
        time.sleep(0.1)
    return longest


def _journalled(output: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(path.read_bytes().count(b'"sha256"') for path in output.glob(".staging/*/journal.jsonl"))
    return 0


def _bytes(output: Path) -> dict[str, bytes]:
    names = ("run.json", "report.html", "report.txt", "_SUCCESS")
    found = (path for path in output.rglob("*") if path.is_file() and path.name not in names)
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(found)}


class _Nodes:
    """A head without cores, and nodes of one core each."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> _Nodes:
        from ray.cluster_utils import Cluster

        memory = 100 * 2**20
        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": memory}
        )
        self._nodes: list[Any] = []
        self.complete()
        os.environ["RAY_ADDRESS"] = self._cluster.address
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop("RAY_ADDRESS", None)
        self._cluster.shutdown()

    def complete(self) -> None:
        """Bring back what was killed."""
        while len(self._nodes) < self._number:
            self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20))

    def kill(self, kind: str, driver: subprocess.Popen[bytes], draw: random.Random) -> int:
        """Kill one of a kind, and bring back the node before; returns how many were killed."""
        if kind == "driver":
            driver.kill()
            driver.wait()
        elif kind == "node":
            self.complete()
            node = draw.choice(self._nodes)
            self._nodes.remove(node)
            self._cluster.remove_node(node, allow_graceful=False)
        elif actors := _actors():
            os.kill(draw.choice(actors), signal.SIGKILL)
        else:
            return 0
        return 1


def _actors() -> list[int]:
    """The processes of actors of ours."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and b"ray::ScoringActor" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


if __name__ == "__main__":
    main()
