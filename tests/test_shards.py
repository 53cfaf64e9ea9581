"""Small files share a shard: the same shards at every start, the same bytes as if each file were scored alone, found again by part."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import run_score
from crashing import KILLED, Fault, in_child
from flow import fake_bundle, fake_predictions, flow
from hypothesis import given, settings
from hypothesis import strategies as st
from test_crash import patched
from test_scoring import FakeBackend, bundle, model_of, rows_of, texts_of

from batchscore.config import Allowance, ComputeSettings, ReadSettings
from batchscore.errors import StorageError
from batchscore.formats.answers import answers_of
from batchscore.formats.staged import Section, read_blocks, stage_shard
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.model.bundle import Bundle
from batchscore.model.scoring import score_parts, score_texts
from batchscore.records import MicroBatch, Part, Position, Predictions, Shard, Status, Task
from batchscore.runs.done_shards import DoneShards
from batchscore.runs.folder import Staging
from batchscore.runs.planning import Plan, given_labels
from batchscore.runs.shards import ShardWriter, StagedParts, read_shards, shards_of
from batchscore.system.journal import Journal
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import STAGING, make_folder, sha256_of

__all__ = ["bundle", "patched"]


def plan_of(*files: list[tuple[int, int]]) -> Plan:
    """A plan of parts with so many rows and bytes in each file."""
    parts = [(place, part) for place, file in enumerate(files) for part in file]
    made = tuple(Part(k, file, Position(), rows, "", size) for k, (file, (rows, size)) in enumerate(parts))
    return Plan(tuple(range(len(files))), made)  # type: ignore[arg-type]


SMALL = ReadSettings(part_rows=10, part_bytes=100)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param([[(4, 1)], [(6, 1)], [(1, 1)]], [[0, 1], [2]], id="up to as many rows as a part has"),
        pytest.param([[(1, 60)], [(1, 40)], [(1, 1)]], [[0, 1], [2]], id="up to as many bytes"),
        pytest.param([[(1, 999)], [(1, 999)]], [[0], [1]], id="a huge row goes alone"),
        pytest.param(
            [[(1, 1)], [(10, 1), (1, 1)], [(1, 1)]], [[0], [1], [2], [3]], id="a large file's part too"
        ),
        pytest.param([[(1, 1)], [], [(1, 1)]], [[0, 1]], id="a file without a row has no part"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_consecutive_small_files_go_together(files: list[Any], expected: list[list[int]]) -> None:
    shards = shards_of(plan_of(*files), SMALL)
    assert [[part.number for part in shard.parts] for shard in shards] == expected
    assert [shard.number for shard in shards] == [numbers[0] for numbers in expected]


sizes = st.tuples(st.integers(1, 10), st.integers(0, 100))


@given(st.lists(st.lists(sizes, max_size=3), max_size=30))
@settings(max_examples=50, deadline=None)
def test_every_part_is_in_one_shard_and_none_is_larger_than_a_part_may_be(files: list[Any]) -> None:
    plan = plan_of(*files)
    shards = shards_of(plan, SMALL)
    assert tuple(part for shard in shards for part in shard.parts) == plan.parts
    for shard in shards:
        assert shard.rows <= SMALL.part_rows
        assert sum(part.bytes for part in shard.parts) <= SMALL.part_bytes


# --- one micro-batch for several files -----------------------------------------------------------------------------------


class Ours(FakeBackend):
    """One whose answers do not depend on the rows beside them."""

    name, rows_are_alone = "torch", True


class OursTogether(FakeBackend):
    """Our encoder of an architecture whose answers do depend on them, or on a machine that packs no weights."""

    name, rows_are_alone = "torch", False


def parts_of(n: int = 40) -> list[list[str | None]]:
    texts = texts_of(n)
    return [texts[:1], [None, "", texts[0], texts[0]], texts[1:30], [], texts[:5], texts[30:]]


@pytest.mark.parametrize("backend", [FakeBackend, Ours])
def test_a_shard_has_the_answers_of_its_parts(bundle: Bundle, backend: type[FakeBackend]) -> None:
    model = model_of(bundle, backend())
    together, alone = score_parts(parts_of(), model), [score_texts(texts, model) for texts in parts_of()]
    for found, expected in zip(together, alone, strict=True):
        for name in ("status", "predicted", "probabilities", "n_tokens", "truncated"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        assert found.work["duplicates"] == expected.work["duplicates"]
        assert found.failures == expected.failures


def test_micro_batches_of_several_parts_are_larger_only_if_the_model_may_mix_them(bundle: Bundle) -> None:
    shapes = {}
    for kind in (FakeBackend, OursTogether, Ours):
        apart, together = kind(), kind()
        for texts in parts_of():
            score_texts(texts, model_of(bundle, apart))
        score_parts(parts_of(), model_of(bundle, together))
        shapes[kind] = sorted(apart.shapes), sorted(together.shapes)
    for kind in (FakeBackend, OursTogether):
        assert shapes[kind][0] == shapes[kind][1]
    assert len(shapes[Ours][1]) < len(shapes[Ours][0])


def test_a_row_that_fails_is_told_of_its_own_part(bundle: Bundle) -> None:
    parts: list[list[str | None]] = [["a film", None], ["a plot", "the xylophone"], ["a film"]]
    model = model_of(bundle, Ours())
    poison = int(next(model.tokenizer.token_ids(["xylophone"]))[1])
    found = score_parts(parts, model_of(bundle, Ours(poison=poison)))
    assert [each.failures for each in found] == [(), ((1, "RuntimeError: poisoned"),), ()]


# --- staged and read back ------------------------------------------------------------------------------------------------


def many_files(folder: Path, files: int, rows: int = 3) -> list[Path]:
    """Files of a few rows, of three formats, some of them without labels or with rows that cannot be read."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        frame = pd.DataFrame(
            {
                "id": range(rows),
                "text": [f"the film {number % 4} is {'good' if k % 2 else 'bad'}" for k in range(rows)],
                "label": ["POSITIVE", "NEGATIVE", None][:1] * rows,
            }
        )
        path = folder / f"{number:03d}.{('csv', 'jsonl', 'parquet')[number % 3]}"
        if number % 3 == 0:
            path.write_text(frame.to_csv(index=False) + ("one cell\n" if number == 3 else ""))
        elif number % 3 == 1:
            frame.to_json(path, orient="records", lines=True)
        else:
            frame.to_parquet(path)
        paths.append(path)
    return paths


def test_a_part_in_a_shard_is_what_it_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    made = flow(tmp_path, *many_files(tmp_path / "in", 7))
    bundle, read = fake_bundle(), ReadSettings()
    answers, staging = answers_of(bundle.task, bundle.labels), Staging(OwnPath(tmp_path) / "staging")
    make_folder(staging.parts)
    writer = ShardWriter(staging, given_labels(made.plan, bundle, {}), answers)
    writer = pickle.loads(pickle.dumps(writer))  # as a scoring process gets it
    (shard,) = shards_of(made.plan, read)
    ((_, rows),) = read_shards(made.plan, [shard], read)
    staged = writer.stage(shard, rows, [fake_predictions(each, len(bundle.labels)) for each in rows])
    assert (staged.number, staged.parts) == (0, 7)
    assert staged.sha256 == sha256_of(staging.shard(0))
    assert staging.parts.names() == ["00000000.arrow"]
    assert [len(block) for block in read_blocks(staging.shard(0), answers)] == [
        2,
        1,
        2,
        1,
        1,
    ]  # records together
    parts = StagedParts(staging, [shard], answers)
    for number in (0, 6, 3, 1, 2, 4, 5):
        found, alone = parts.open(number), made.staged[number]
        assert found.batch.equals(alone.batch)
        assert found.facts == alone.facts
        assert found.alone.batch.equals(alone.batch)
        sizes = [[b and b.size for b in column.buffers()] for column in found.alone.batch.columns]
        assert sizes == [[b and b.size for b in pa.concat_arrays([c]).buffers()] for c in alone.batch.columns]
        assert all(not buffer.address % 8 for buffer in found.batch.column(0).buffers() if buffer)


@pytest.mark.parametrize("task", [Task.MULTI_LABEL, Task.REGRESSION])
@pytest.mark.parametrize("counts", [(4, 1, 0, 7), (5,)])
def test_answers_of_every_task_are_what_they_were(
    task: Task, counts: tuple[int, ...], tmp_path: Path
) -> None:
    labels = ("a", "b", "c") if task is Task.MULTI_LABEL else ("score",)
    answers, rng, sections = answers_of(task, labels), np.random.default_rng(0), []
    for n in counts:
        shape = (n, 3) if task is Task.MULTI_LABEL else (n,)
        predicted = rng.integers(0, 2, shape).astype(np.int8)
        given = predicted[::-1].copy()
        if task is Task.REGRESSION:
            predicted, given = predicted.astype(np.float32), given.astype(np.float64)
        values = rng.random((n, len(labels))).astype(np.float32)
        status = np.full(n, Status.OK, dtype=np.int8)
        status[:1], values[:1] = Status.NULL_TEXT, np.nan
        tokens = np.arange(n, dtype=np.int32) - 1
        predictions = Predictions(status, predicted, values, tokens, tokens > 2)
        sections.append(Section(rows_of(["text"] * n), predictions, given))
    path = OwnPath(tmp_path) / "shard"
    stage_shard(path, sections, answers)
    (block,) = read_blocks(path, answers)
    for section, found in zip(sections, block.parts(), strict=True):
        np.testing.assert_array_equal(found.given, section.given)
        assert found.row.tolist() == section.rows.row
        for name in ("status", "predicted", "probabilities", "truncated"):
            expected = getattr(section.predictions, name)
            np.testing.assert_array_equal(getattr(found.predictions, name), expected, name)


def predictions_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "predictions").iterdir())}


COMPUTE = ComputeSettings(device="cpu", precision="fp32", max_batch_tokens=512, workers=1)


def test_many_small_files_have_the_bytes_of_each_alone(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    logits = TorchBackend.logits

    def noted(backend: TorchBackend, batch: MicroBatch) -> Any:
        rows.append(len(batch.input_ids))
        return logits(backend, batch)

    monkeypatch.setattr(TorchBackend, "logits", noted)
    paths = many_files(tmp_path / "in", 6)
    options: dict[str, Any] = {"compute": COMPUTE, "max_rejects": Allowance.parse("1")}
    run_score(paths, tiny_bundle, tmp_path / "run", **options)
    assert max(rows) > 3  # rows of several files
    # a part of one row each: nothing is scored together
    run_score(paths, tiny_bundle, tmp_path / "alone", read=ReadSettings(part_rows=1), **options)
    assert predictions_of(tmp_path / "run") == predictions_of(tmp_path / "alone")
    assert len(predictions_of(tmp_path / "run")) == 6


# --- the journal, in groups ----------------------------------------------------------------------------------------------


def shard_of(number: int, rows: int = 1) -> Shard:
    return Shard.of(Part(number, 0, Position(), rows, ""))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.jsonl")
    yield made
    made.close()


def test_entries_wait_a_second_or_for_2048_rows(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    told: list[int] = []
    with DoneShards(journal, OwnPath(tmp_path)) as done:

        def add(number: int, rows: int = 1) -> None:
            done.add({"shard": number}, shard_of(number, rows), lambda shard: told.append(shard.number))

        add(0)  # nothing was entered within the last second
        assert (told, synced) == ([0], 2)
        for number in range(1, 9):
            add(number)
        assert (told, synced) == ([0], 2)
        add(9, 2048)
        assert (told, synced) == (list(range(10)), 4)
        add(10)
        timer = done._timer
        assert timer is not None
        timer.join(5)
        assert told[-1] == 10
        add(11)
    assert told == list(range(12))
    assert [entry["shard"] for entry in journal.entries] == told


def test_an_error_of_the_thread_that_enters_in_time_is_raised(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchscore.runs.done_shards._SECONDS", 0.1)
    full = threading.Event()

    def fail(*_: Any, **__: Any) -> None:
        full.set()
        raise StorageError("full")

    done = DoneShards(journal, OwnPath(tmp_path))
    done.add({"shard": 0}, shard_of(0), lambda _: None)
    monkeypatch.setattr(journal, "extend", fail)
    done.add({"shard": 1}, shard_of(1), lambda _: None)
    assert full.wait(5)
    with pytest.raises(StorageError, match="full"):
        done.flush()


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_small_files_killed_at_any_step_end_the_same(
    patched: FakeBackend, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    paths = many_files(tmp_path / "in", 6)

    def score(output: Path) -> None:
        read = ReadSettings(part_rows=10)
        run_score(paths, tiny_model, output, read=read, max_rejects=Allowance.parse("1"))

    score(tmp_path / "whole")
    for at in range(50 if kind == "kill" else 70, 1000, 41):
        output = tmp_path / str(at)
        code = in_child(lambda: score(output), Fault(output, at, kind))  # noqa: B023
        if code == 0:
            break
        assert code == KILLED
        score(output)
        assert predictions_of(output) == predictions_of(tmp_path / "whole")
        assert not (output / STAGING).exists()
    assert at > 80, "the steps were not found"
