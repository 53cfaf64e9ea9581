"""Runs into a bucket that are killed again and again, each time to go on as if on another machine: what is left, and what comes out.

``python tests/kill_bucket_runs.py --data FILE --model BUNDLE --kills 50`` scores a file into a bucket of its own store, behind a proxy that
breaks one request of fifty, and kills the process (SIGKILL) at random moments, until it was killed so often. After each kill a finished
run, if there is one, must be whole, and no upload may be left; each run that finishes is held against one in a folder: keys and hashes.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broken_buckets import environment, make_bucket, proxied, serving, sometimes, uploads_in

from batchscore.addresses import Address
from batchscore.runs.folder import MANIFEST, TIMED
from batchscore.system.buckets import BucketStore
from batchscore.system.storage import read_manifest
from batchscore.system.stores import bytes_of

BUCKET = "reviews"


def command(options: argparse.Namespace, output: object) -> list[str]:
    scored = [sys.executable, "-m", "batchscore", "score", str(options.data), "--model", str(options.model)]
    return [
        *scored,
        "--output",
        str(output),
        "--limit",
        str(options.rows),
        "--precision",
        "fp32",
        "--workers",
        "1",
        "-q",
    ]


def killed(arguments: list[str], seconds: float, scratch: str) -> int | None:
    """Start a run and kill it after some time; None if it was killed, else its exit code."""
    process = subprocess.Popen(arguments, env={**os.environ, "BATCHSCORE_SCRATCH": scratch})
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return None


def check(store: BucketStore, expected: dict[str, str], upstream: str) -> str:
    """What is there: ``finished`` or ``unfinished``; asserts that a finished run is whole, and equal, and that no upload is left."""
    assert uploads_in(upstream, BUCKET) == 0
    found = {each.name for each in store.list()}
    if MANIFEST not in found:
        return "unfinished"
    hashes = {name: hashlib.sha256(bytes_of(store, name)).hexdigest() for name in expected}
    listed = [line.split("  ", 1) for line in bytes_of(store, MANIFEST).decode().splitlines()]
    assert {name: digest for digest, name in listed} == hashes
    assert {name for name in expected if hashes[name] != expected[name]} <= TIMED
    return "finished"


def tell(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", default=8192)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    seen: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, serving() as upstream, proxied(upstream) as proxy:
        make_bucket(upstream, BUCKET)
        os.environ |= environment(proxy.endpoint)
        proxy.plan = sometimes(0.02, options.seed)
        began = time.monotonic()
        assert killed(command(options, f"{folder}/run"), 600, folder) == 0
        whole = time.monotonic() - began
        expected = read_manifest(Path(folder) / "run")
        kills = runs = 0
        while kills < options.kills:
            runs += 1
            place = Address("s3", BUCKET, f"runs/{runs}")
            store = BucketStore(place)
            arguments, starts = command(options, place), 0
            while True:
                starts += 1
                scratch = tempfile.mkdtemp(dir=folder)  # as another machine has it
                kill_now = kills < options.kills and starts < 8
                code = killed(arguments, chance.uniform(0.4, 1.1) * whole if kill_now else 600, scratch)
                state = check(store, expected, upstream)
                if code is None:
                    kills += 1
                    staged = sum("/parts/" in each.name for each in store.list(".staging"))
                    seen[f"killed, {state}, {staged} staged"] += 1
                    whole *= 1 if staged else 1.1  # the machine may be busier now
                    continue
                whole *= 0.8 if kill_now else 1
                assert code == 0, code
                assert state == "finished"
                break
            left = {each.name for each in store.list()} - expected.keys() - {MANIFEST}
            assert not left, left
            tell(run=runs, starts=starts, kills=kills)
        tell(kills=kills, runs=runs, seen=dict(seen), broken=dict(proxy.done))


if __name__ == "__main__":
    main()
