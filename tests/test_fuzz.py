"""A small part of ``fuzz.py`` with every change, and whether it finds what it looks for."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import fuzz
import pytest

INPUTS, DOCUMENTS = 25, 3


@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_a_mangled_file_ends_with_a_documented_code(kind: str, tmp_path: Path) -> None:
    seeds, faults, codes = fuzz.corpus(kind), [], set()
    for number in range(INPUTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = fuzz.read_input(kind, number, folder, seeds)
        codes.add(outcome.code)
        faults += [f"{number}: {outcome.fault}"] if outcome.fault else []
    assert faults == []
    assert codes == {0, 65}  # some are as good as before, some are not


@pytest.fixture(scope="module")
def world(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patched:
        for name, value in fuzz.ENVIRONMENT.items():
            patched.setenv(name, value)
        fuzz.make_world(folder, tiny_bundle)
    return folder


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("name", fuzz.DOCUMENTS)
def test_a_mangled_document_ends_with_a_documented_code(name: str, world: Path, tmp_path: Path) -> None:
    faults = []
    for number in range(DOCUMENTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = fuzz.read_document(name, number, folder, world)
        faults += [f"{number}: {outcome.fault}"] if outcome.fault else []
    assert faults == []


def misbehave(kind: str, number: int, folder: Path, given: Any) -> fuzz.Outcome:
    """Each number in its own way."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        time.sleep(30)
    if number == 3:
        b"x" * (300 * 2**20)
    if number == 4:
        return fuzz.outcome_of(lambda: given["surprise"])
    return fuzz.Outcome(65)


def test_the_watch_finds_signals_hangs_memory_and_faults() -> None:
    tally = fuzz.watched(misbehave, "odd", range(6), {}, seconds=3, megabytes=290)
    assert tally.codes == {65: 3, 1: 3}
    assert [fault.partition(" at ")[0] for fault in tally.faults] == [
        f"odd 1: the process ended with {-signal.SIGSEGV}",
        "odd 2: no end after 3 s",
        *[fault for fault in tally.faults if fault.startswith("odd 3: it took ")],
        "odd 4: KeyError",
    ]
    assert len(tally.faults) == 4


def test_an_input_follows_from_its_number() -> None:
    seeds = fuzz.corpus("csv")
    made = [fuzz.mangled_file("csv", seeds, random.Random(f"csv {number}")) for number in (1, 2, 1)]
    assert made[0] == made[2] != made[1]
