"""Stopped at any step, by a kill, a full disk or a fault: nothing half at a final name, and the rerun ends the same."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import run_score
from crashing import KILLED, Fault, in_child
from test_scoring import FakeBackend

from batchscore.config import Allowance, ReadSettings, ScoreSettings
from batchscore.errors import DataError, InterruptedRunError, NoInputError, OutputError, StorageError
from batchscore.formats.writing import write_predictions
from batchscore.model import loading, scoring
from batchscore.model.backends import torch_backend
from batchscore.model.backends.torch_backend import TorchBackend
from batchscore.model.bundle import open_bundle
from batchscore.model.loading import load_model
from batchscore.model.scoring import InferenceSettings, Model
from batchscore.model.tokenization import Tokenizer
from batchscore.records import MicroBatch
from batchscore.runs import finishing, measuring, prediction_building, shards
from batchscore.runs import run as runs
from batchscore.runs.engines import local
from batchscore.runs.inspection import verify
from batchscore.runs.result import RunResult
from batchscore.system.journal import Journal
from batchscore.system.storage import MANIFEST, STAGING, files_below, sha256_of

EVERY = int(os.environ.get("BATCHSCORE_TEST_EVERY", "31"))
"""Of the steps of a run, the tests take every so many; 1 takes them all, in some minutes."""
WORDS = ["film", "terrible", "wonderful", "a", "the", "plot", "acting", "boring", "music", "never"]
TIMES = {"run.json"}
"""Files whose bytes tell the time."""


def texts(n: int) -> list[str | None]:
    return [" ".join(WORDS[(k * 7 + j) % 10] for j in range(1 + k * 5 % 23)) for k in range(n)]


def frame(n: int, first: int = 0) -> pd.DataFrame:
    """``n`` rows, some without a text or a label."""
    values = texts(n)
    values[3], values[5] = None, " "
    labels = [("pos", "neg", "POSITIVE", "")[k % 4] for k in range(n)]
    return pd.DataFrame({"id": [f"{first + k:03d}" for k in range(n)], "text": values, "label": labels})


@dataclass
class World:
    """Inputs, a model that answers at once, and what a run of them looks like."""

    folder: Path
    inputs: list[Path]
    others: list[Path]
    model: Path
    expected: dict[str, str]
    expected_others: dict[str, str]

    def score(self, output: Path, *, others: bool = False, **options: Any) -> RunResult:
        options = {"max_rejects": Allowance.parse("2"), **options}
        inputs = self.others if others else self.inputs
        return run_score(inputs, self.model, output, read=ReadSettings(part_rows=12), **options)

    def finish(self, output: Path, **options: Any) -> None:
        """Score to the end, and find exactly what an uninterrupted run leaves."""
        self.score(output, **options)
        assert contents(output) == self.expected
        assert not (output / STAGING).exists()
        assert verify(output)["kind"] == "run"

    def check(self, output: Path, *, before: Mapping[str, str] | None = None) -> None:
        """Whatever stands at a final name is whole, be it of this run or of the one ``before``."""
        if not output.exists():
            return
        for name, digest in contents(output).items():
            assert digest in {self.expected.get(name), (before or {}).get(name)}, name
        if (output / MANIFEST).exists():
            assert verify(output)["kind"] == "run"


def contents(output: Path) -> dict[str, str]:
    """SHA-256 of every file of a run, of ``run.json`` without its times, and those and the inodes of its files and inputs."""
    hashes = {name: sha256_of(output / name) for name in files_below(output) if name not in TIMES}
    with contextlib.suppress(FileNotFoundError):
        facts = json.loads((output / "run.json").read_bytes())
        assert facts.pop("started") <= facts.pop("finished")
        assert facts.pop("seconds") >= 0 <= facts.pop("work")["scoring_seconds"]
        assert MANIFEST not in facts.pop("written")
        assert len(facts.pop("noted")) == len(facts["files"])
        hashes["run.json"] = json.dumps(facts, sort_keys=True)
    return hashes


@pytest.fixture(scope="module")
def patched(tiny_model: Path) -> Iterator[FakeBackend]:
    """A model that is loaded already and answers at once; a page without charts."""
    bundle = open_bundle(str(tiny_model))
    backend = FakeBackend()
    model = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(256, "head"))

    def load(*_: Any) -> tuple[Model, dict[str, Any]]:
        return model, {"backend": "fake", "max_batch_tokens": 256}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_model", load)
        patch.setattr(
            measuring, "render_run", lambda _, metrics, worst, *__, **___: f"<p>{metrics}{worst}</p>"
        )
        patch.setattr(measuring, "run_text", lambda _, metrics, *__, **___: f"{metrics}")
        yield backend


@pytest.fixture(scope="module")
def world(patched: FakeBackend, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    inputs, others = [folder / "in" / "a.csv", folder / "in" / "b.parquet"], [folder / "old" / "c.csv"]
    for path in (*inputs, *others):
        path.parent.mkdir(exist_ok=True)
    frame(30).to_csv(inputs[0], index=False)
    with inputs[0].open("a") as file:
        file.write("x,too,many,cells\nlast,wonderful,pos\nshort\n")
    frame(30, 100).to_parquet(inputs[1])
    frame(15, 200).to_csv(others[0], index=False)
    with others[0].open("a") as file:
        file.write("y\n")
    world = World(folder, inputs, others, tiny_model, {}, {})
    world.score(folder / "run")
    world.score(folder / "other", others=True)
    world.expected, world.expected_others = contents(folder / "run"), contents(folder / "other")
    assert {"rejects.jsonl", "mismatches.csv", "predictions/a.csv", "predictions/b.parquet"} <= set(
        world.expected
    )
    return world


def steps_of(world: World, output: Path, kind: str = "kill", **options: Any) -> list[str]:
    """The steps of a run that nothing stops."""
    told, tell = os.pipe()
    fault = Fault(output, kind=kind)

    def work() -> None:
        world.score(output, **options)
        (world.folder / "steps.json").write_text(json.dumps(fault.steps))

    assert in_child(work, fault) == 0
    os.close(told)
    os.close(tell)
    steps: list[str] = json.loads((world.folder / "steps.json").read_text())
    return steps


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["kill", "power"])
def test_killed_at_every_step_and_run_again_it_ends_the_same(world: World, tmp_path: Path, kind: str) -> None:
    for step in range(1 if kind == "kill" else 1 + EVERY // 2, 1000, EVERY):
        output = tmp_path / str(step)
        code = in_child(lambda: world.score(output), Fault(output, step, kind))  # noqa: B023
        if code == 0:
            break
        assert code == KILLED
        world.check(output)
        world.finish(output)
        shutil.rmtree(output)
    assert step > 80, "the steps were not found"


def test_killed_while_it_replaces_another_run_it_leaves_nothing_of_it(world: World, tmp_path: Path) -> None:
    before = world.expected_others
    for step in range(1, 1000, EVERY):
        output = tmp_path / str(step)
        shutil.copytree(world.folder / "other", output)
        code = in_child(lambda: world.score(output, force=True), Fault(output, step))  # noqa: B023
        if code == 0:
            break
        assert code == KILLED
        world.check(output, before=before)
        world.finish(output, force=True)
        shutil.rmtree(output)
    assert step > 80, "the steps were not found"


@pytest.mark.parametrize("again", [{"force": True}, {}], ids=["with --force", "without"])
def test_killed_twice_while_it_replaces_another_run_it_leaves_nothing_of_it(
    world: World, tmp_path: Path, again: dict[str, Any]
) -> None:
    """The first kill falls between the old files and the new, the second on every step of the next start."""
    shutil.copytree(world.folder / "other", tmp_path / "steps")
    steps = steps_of(world, tmp_path / "steps", force=True)
    gone = next(k for k, step in enumerate(steps, 1) if step.endswith(f"remove {tmp_path}/steps/{MANIFEST}"))
    half = tmp_path / "half"
    shutil.copytree(world.folder / "other", half)
    assert in_child(lambda: world.score(half, force=True), Fault(half, gone + 2)) == KILLED
    assert not (half / MANIFEST).exists()
    assert (half / "predictions" / "c.csv").exists()
    for step in range(EVERY, 1000, EVERY):
        output = tmp_path / str(step)
        shutil.copytree(half, output)
        code = in_child(lambda: world.score(output, **again), Fault(output, step))  # noqa: B023
        if code == 0:
            break
        assert code == KILLED
        world.check(output, before=world.expected_others)
        world.finish(output, **again)
        shutil.rmtree(output)


def test_a_force_that_was_stopped_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "other", output)
    steps = steps_of(world, shutil.copytree(output, tmp_path / "steps"), force=True)
    at = next(k for k, step in enumerate(steps, 1) if "/final" in step)
    assert in_child(lambda: world.score(output, force=True), Fault(output, at)) == KILLED
    assert in_child(lambda: world.score(output, force=True), Fault(output, 40)) == KILLED
    assert scored_parts(output) == [0, 1, 2, 3, 4, 5]
    assert contents(output) == world.expected_others
    world.finish(output, force=True)
    assert world.score(output, force=True).status == "scored"  # and once more, although done


def test_a_failed_force_keeps_the_finished_run_as_it_was(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "other", output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="Name another --output to have all of them listed"):
        world.score(output, force=True, max_rejects=Allowance.parse("0"))
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_refused_start_over_half_replaced_files_forgets_nothing(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "other", output)
    steps = steps_of(world, tmp_path / "x", force=True)
    for step in range(len(steps) - 20, 1, -4):  # a kill that leaves no manifest
        shutil.rmtree(output)
        shutil.copytree(world.folder / "other", output)
        in_child(lambda: world.score(output, force=True), Fault(output, step))
        if not (output / MANIFEST).exists():
            break
    with pytest.raises(DataError):
        world.score(output, force=True, max_rejects=Allowance.parse("0"))
    world.finish(output, force=True)


def test_a_run_with_too_many_rejects_goes_on_when_more_are_allowed(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    for step in range(1, 200, max(2, EVERY // 2)):
        none = Allowance.parse("0")
        code = in_child(lambda: world.score(output, max_rejects=none), Fault(output, step))  # noqa: B023
        if code == 65:
            assert (output / "rejects.jsonl").read_bytes() == (
                world.folder / "run" / "rejects.jsonl"
            ).read_bytes()
            break
        assert code == KILLED
    else:
        pytest.fail("it never came to its end")
    world.finish(output)


def test_a_finished_run_is_left_alone(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "run", output)
    assert [step for step in steps_of(world, output) if not step.startswith("mkdir")] == []
    assert world.score(output).status == "done"


# --- a disk that is full or fails --------------------------------------------------------------------------------------


def test_with_the_disk_full_from_any_step_on_it_ends_in_74_and_goes_on(world: World, tmp_path: Path) -> None:
    for step in range(1, 1000, 2 * EVERY):
        output = tmp_path / str(step)
        code = in_child(lambda: world.score(output), Fault(output, step, "full"))  # noqa: B023
        if code == 0:
            break
        assert code == 74, step
        world.check(output)
        world.finish(output)
        shutil.rmtree(output)
    assert step > 60, "the steps were not found"


def test_a_file_that_cannot_be_written_to_its_end_is_74_and_it_goes_on(world: World, tmp_path: Path) -> None:
    """Every larger file in turn is one that the disk has no room for: parts, rejects, tables, predictions."""
    sizes = {path.stat().st_size for path in (world.folder / "run").rglob("*") if path.is_file()}
    every = max(1, EVERY // 10)
    for most in [*sorted({size - 1 for size in sizes} | {3000, 4000, 5000})[::every], max(sizes) - 1]:
        output = tmp_path / str(most)
        code = in_child(lambda: world.score(output), most_bytes=most)  # noqa: B023
        if code == 0:
            assert most > max(sizes) - 2
            continue
        assert code == 74, most
        if most < max(sizes) - 1:
            assert not files_below(output) if output.exists() else True
        world.check(output)
        world.finish(output)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
def test_a_file_that_cannot_be_read_on_the_way_is_74_and_it_goes_on(
    world: World, tmp_path: Path, error: int
) -> None:
    for step in range(1, 1000, EVERY):
        output = tmp_path / str(step)
        code = in_child(lambda: world.score(output), Fault(output, step, "read", error))  # noqa: B023
        if code == 0:
            break
        assert code == 74, step
        world.check(output)
        world.finish(output)
        shutil.rmtree(output)
    assert step > EVERY, "the steps were not found"


def test_an_input_that_cannot_be_read_on_the_way_is_74_and_it_goes_on(world: World, tmp_path: Path) -> None:
    codes = []
    for step in range(1, 100, max(1, EVERY // 4)):
        output = tmp_path / str(step)
        fault = Fault(world.folder / "in", step, "read", errno.EIO)
        codes.append(in_child(lambda: world.score(output), fault))  # noqa: B023
        if codes[-1] == 0:
            break
        world.check(output)
        world.finish(output)
    assert set(codes[:-1]) == {74}
    assert len(codes) > 2


# --- damage while it was stopped ---------------------------------------------------------------------------------------


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that was killed when all of its parts were staged; tests may write into it."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


@pytest.fixture(scope="module")
def stopped_once(world: World) -> Path:
    """The same for all tests."""
    steps = steps_of(world, world.folder / "steps")
    at = next(k for k, step in enumerate(steps, 1) if "/final" in step)
    output = world.folder / "stopped"
    assert in_child(lambda: world.score(output), Fault(output, at)) == KILLED
    assert len(list(output.rglob("*.arrow"))) == 6
    return output


def staged(output: Path, name: str) -> Path:
    (path,) = output.glob(f"{STAGING}/*/{name}")
    return path


def flip(path: Path, where: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 4
    path.write_bytes(content)


def scored_parts(output: Path) -> list[int]:
    with contextlib.closing(Journal(staged(output, "journal.jsonl"))) as journal:
        return [entry["shard"] for entry in journal.entries if "shard" in entry]


@pytest.mark.parametrize(
    "damage", [flip, lambda path: os.truncate(path, 100), Path.unlink], ids=["flip", "cut", "gone"]
)
def test_a_part_that_is_not_as_it_was_written_is_scored_again(
    world: World, stopped: Path, damage: Callable[[Path], object]
) -> None:
    damage(staged(stopped, "parts/00000002.arrow"))
    at = next(
        k
        for k, step in enumerate(steps_of(world, shutil.copytree(stopped, stopped.with_name("x"))), 1)
        if "/final" in step
    )
    assert in_child(lambda: world.score(stopped), Fault(stopped, at)) == KILLED
    assert scored_parts(stopped) == [0, 1, 2, 3, 4, 5, 2]
    world.finish(stopped)


@pytest.mark.parametrize("name", ["plan.json", "rejects.jsonl", "journal.jsonl"])
@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: flip(path, 0),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\x00 rubbish {"),
        Path.unlink,
    ],
    ids=["flip", "first flip", "cut", "empty", "rubbish", "gone"],
)
def test_a_damaged_note_is_made_anew(
    world: World, stopped: Path, name: str, damage: Callable[[Path], object]
) -> None:
    damage(staged(stopped, name))
    world.finish(stopped)


def test_a_damaged_list_of_what_is_to_go_is_refused(world: World, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "other", output)
    in_child(lambda: world.score(output, force=True), Fault(output, 60))
    (output / STAGING / "replaced.json").write_bytes(b"[]")
    with pytest.raises(OutputError, match=r"replaced.json is damaged"):
        world.score(output, force=True)
    assert contents(output) == world.expected_others


def test_a_staging_folder_that_leads_elsewhere_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STAGING).symlink_to(tmp_path / "elsewhere")
    for force in (False, True):
        with pytest.raises(OutputError, match="is a link"):
            world.score(tmp_path / "run", force=force)
    assert (tmp_path / "elsewhere" / "mine").exists()


@pytest.mark.parametrize("content", [b"[]", b"{}", b"{", b'{"fingerprint": null}'])
def test_a_finished_run_whose_facts_are_damaged_is_refused_not_trusted(
    world: World, tmp_path: Path, content: bytes
) -> None:
    output = tmp_path / "run"
    shutil.copytree(world.folder / "run", output)
    (output / "run.json").write_bytes(content)
    with pytest.raises(OutputError, match="--force"):
        world.score(output)
    world.finish(output, force=True)


# --- faults of the program ----------------------------------------------------------------------------------------------


def test_a_row_that_a_writer_drops_is_noticed_before_anything_gets_its_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = write_predictions

    def drop_a_row(parts: Any, *args: Any) -> None:
        first, *rest = parts
        write([type(first)(first.batch.slice(1), first.answers, first.facts), *rest], *args)

    with monkeypatch.context() as patch:
        patch.setattr(prediction_building, "write_predictions", drop_a_row)
        with pytest.raises(
            RuntimeError, match=r"a.csv: 33 rows were read and 2 of them rejected, .* have 30"
        ):
            world.score(tmp_path / "run")
        assert files_below(tmp_path / "run") == []
    with monkeypatch.context() as patch:
        patch.setattr(finishing.Finish, "_copy_rejects", lambda _, out: out.write(b"{}\n"))
        with pytest.raises(RuntimeError, match="2 rows were rejected, but 1 are listed"):
            world.score(tmp_path / "run")
        assert files_below(tmp_path / "run") == []
    world.finish(tmp_path / "run")


def test_a_row_that_the_backend_cannot_score_fails_alone_and_is_explained(
    world: World, patched: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = frame(40)
    rows.loc[17, "text"] = "xylophone"
    rows.to_csv(tmp_path / "in.csv", index=False)
    tokenizer = Tokenizer(open_bundle(str(world.model)))
    run_score(tmp_path / "in.csv", world.model, tmp_path / "fine")
    monkeypatch.setattr(patched, "poison", int(next(tokenizer.token_ids(["xylophone"]))[1]))
    result = run_score(tmp_path / "in.csv", world.model, tmp_path / "run")
    assert result.metrics["failed_rows"] == [
        {"file": "in.csv", "row": 17, "reason": "RuntimeError: poisoned"}
    ]
    assert result.metrics["counts"]["failed"] == 1
    with pytest.raises(DataError, match="status=failed"):
        result.outcome()
    found, fine = (
        pd.read_csv(tmp_path / run / "predictions" / "in.csv", dtype=str) for run in ("run", "fine")
    )
    assert found.loc[17, "status"] == "failed"
    assert found.loc[17, ["predicted_label", "probability"]].isna().all()
    pd.testing.assert_frame_equal(found.drop(17), fine.drop(17))


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (scoring, "prepare"),
        (scoring, "Computation"),
        (scoring, "conclude"),
        (shards, "stage_shard"),
    ],
)
@pytest.mark.parametrize("error", [MemoryError("none left"), SystemExit(9)], ids=["error", "exit"])
def test_a_stage_that_dies_ends_the_run_and_the_rerun_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, name, raising(error))
        with pytest.raises(StorageError if isinstance(error, MemoryError) else type(error)):
            world.score(tmp_path / "run")
    world.finish(tmp_path / "run")


def test_a_thread_that_dies_without_a_word_ends_in_an_error_not_a_hang(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(local, "_feed", lambda *_: None)
        with pytest.raises(RuntimeError, match="died without a word"):
            world.score(tmp_path / "run")
    world.finish(tmp_path / "run")


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (scoring, "prepare"),
        (FakeBackend, "logits"),
        (shards, "stage_shard"),
        (runs, "make_plan"),
        (prediction_building, "write_predictions"),
        (finishing, "publish"),
    ],
)
def test_a_signal_is_swallowed_nowhere(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Any, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, name, raising(InterruptedRunError("stopped", 15)))
        with pytest.raises(InterruptedRunError) as caught:
            world.score(tmp_path / "run")
        assert caught.value.exit_code == 143
    world.finish(tmp_path / "run")


def test_no_except_exception_takes_a_signal_for_a_failure() -> None:
    assert not issubclass(InterruptedRunError, Exception)


# --- what resume reuses -------------------------------------------------------------------------------------------------


class Stop:
    """A progress display that stops the run after some parts."""

    def __init__(self, parts: int) -> None:
        self.left = parts

    def add(self, amount: int, *, counted: bool = True) -> None:
        self.left -= counted
        if self.left == 0:
            raise InterruptedRunError("stopped", 2)

    def close(self) -> None:
        pass


def test_a_resumed_run_computes_with_what_the_first_start_found(
    world: World, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_model", load_model)
    settings = ScoreSettings(
        tuple(map(str, world.inputs)),
        str(tiny_bundle),
        tmp_path / "run",
        read=ReadSettings(part_rows=12),
        max_rejects=Allowance.parse("2"),
    )
    monkeypatch.setattr(loading, "DEFAULT_BATCH_TOKENS", {"cpu": 64})
    monkeypatch.setattr(torch_backend, "faster_precisions", lambda _: [])
    with pytest.raises(InterruptedRunError):
        runs.score(settings, lambda _: Stop(3))  # type: ignore[arg-type,return-value]
    whole = runs.score(dataclasses.replace(settings, output=tmp_path / "whole"), lambda _: Stop(99))  # type: ignore[arg-type,return-value]
    shapes: list[int] = []
    monkeypatch.setattr(loading, "DEFAULT_BATCH_TOKENS", {"cpu": 8192})
    monkeypatch.setattr(torch_backend, "faster_precisions", lambda _: ["bf16"])
    logits = TorchBackend.logits

    def note(self: Any, batch: MicroBatch) -> Any:
        shapes.extend([batch.input_ids.size] if len(batch.input_ids) > 1 else [])  # a long row may go alone
        return logits(self, batch)

    monkeypatch.setattr(TorchBackend, "logits", note)
    runs.score(settings, lambda _: Stop(99))  # type: ignore[arg-type,return-value]
    assert max(shapes, default=0) <= 64
    facts = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert (facts["compute"]["max_batch_tokens"], facts["compute"]["precision"]) == (64, "fp32")
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert whole.status == "scored"


# --- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".csv", "é" * 125 + "y.csv", "line\nbreak \\n.csv", "no text \udcff.csv"]
)
def test_an_input_may_have_any_name_that_the_disk_takes(world: World, tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    frame(14).to_csv(path, index=False)
    output = tmp_path / "run"
    code = in_child(lambda: run_score(path, world.model, output), Fault(output, 70))
    assert code == KILLED
    run_score(path, world.model, output)
    assert (output / "predictions" / name).exists()
    assert verify(output)["kind"] == "run"
    if len(os.fsencode(name)) > 250:
        with pytest.raises(OutputError, match="too long"):
            run_score(path, world.model, tmp_path / "other", output_format="parquet")
        assert not (tmp_path / "other").exists()


def test_a_baseline_that_cannot_be_read_is_refused_before_the_first_row(world: World, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="--baseline"):
        world.score(tmp_path / "run", baseline=tmp_path / "none")
    assert not (tmp_path / "run").exists()
