"""Scoring processes: the same bytes as in this process, also when one is killed; GPUs of one kind, each seen by its own process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from conftest import run_score

from batchscore.cli.worker_options import Workers
from batchscore.config import ComputeSettings, ReadSettings, ScoreSettings
from batchscore.errors import ModelError, UsageError
from batchscore.formats.answers import answers_of
from batchscore.formats.inputs import find_files
from batchscore.formats.reading import read
from batchscore.model import gpus
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.model.gpus import Gpu
from batchscore.model.loading import ModelSettings
from batchscore.model.scoring import score_texts
from batchscore.runs import engines, part_reading, planning
from batchscore.runs.engines import pool_of
from batchscore.runs.engines.channel import Child
from batchscore.runs.engines.pool import Answered
from batchscore.runs.engines.processes import Place, Processes
from batchscore.runs.folder import Staging
from batchscore.runs.part_reading import PartReader
from batchscore.runs.shard_scoring import Recipe, ShardScoring, Texts, answer, ask, is_answered, versions
from batchscore.runs.shards import ShardWriter
from batchscore.system.own_paths import OwnPath

MANY = 10**6
COMPUTE = ComputeSettings("cpu", "fp32", workers=1)


def recipe_of(bundle: Bundle, folder: Path, **inference: Any) -> Recipe:
    """What a process is made from that is given texts."""
    return Recipe(
        bundle=bundle,
        wanted=ModelSettings(COMPUTE, "head", **inference),
        files=(),
        read=ReadSettings(),
        writer=ShardWriter(Staging(OwnPath(folder)), [], answers_of(bundle.task, bundle.labels)),
        rows=3,
        first_texts=(),
        staging_format=9,
        cores=1,
        versions=versions(),
    )


# ------------------------------------------------------------------------------------------------- the process within


def test_a_process_scores_as_this_one_does(tiny_bundle: Path, tmp_path: Path) -> None:
    texts: list[str | None] = ["a wonderful film", None, "terrible", ""]
    process = ShardScoring(recipe_of(open_bundle(str(tiny_bundle)), tmp_path))
    ready = process.get_ready({})
    (found,) = process.begin(Texts([texts])).result()
    assert process._model is not None
    expected = score_texts(texts, process._model)
    process.close()
    assert ready.compute["canaries"]["labels_changed"] == 0
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.status.tolist() == expected.status.tolist()


def test_a_process_refuses_another_model_and_other_libraries(tiny_bundle: Path, tmp_path: Path) -> None:
    recipe = recipe_of(open_bundle(str(tiny_bundle)), tmp_path)
    files = recipe.bundle.files._replace(times={})  # as on another machine
    other = dataclasses.replace(recipe.bundle, fingerprint="0" * 64, files=files)
    with pytest.raises(ModelError, match="not the same model on the machine"):
        ShardScoring(dataclasses.replace(recipe, bundle=other))
    ShardScoring(dataclasses.replace(recipe, bundle=dataclasses.replace(recipe.bundle, files=files)))
    older = {**recipe.versions, "torch": "1.0"}
    with pytest.raises(ModelError, match=r"has torch .* instead of 1\.0\. Install the same there"):
        ShardScoring(dataclasses.replace(recipe, versions=older))


def test_shared_storage_is_proven_by_an_answer_to_a_question(tmp_path: Path) -> None:
    folder, other = OwnPath(tmp_path), OwnPath(tmp_path) / "other"
    ask(folder)
    name = answer(folder)
    assert is_answered(folder, name)
    other.mkdir()
    ask(other)
    assert not is_answered(folder, answer(other))
    (tmp_path / "other" / name).write_bytes((tmp_path / name).read_bytes())
    assert not is_answered(other, name)  # another night's


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz", "in.parquet", "in.xlsx"])
def test_parts_are_read_in_any_order_and_a_dear_place_is_come_to_by_reading_on(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    frame, path = reviews.head(60), tmp_path / name
    if name.endswith("parquet"):
        frame.to_parquet(path)
    elif name.endswith("xlsx"):
        frame.to_excel(path, index=False)
    else:
        frame.to_csv(path, index=False)
    settings = ScoreSettings(
        (str(path),), str(tiny_bundle), tmp_path / "run", read=ReadSettings(part_rows=10)
    )
    found = find_files(settings.inputs, None, settings.output, None)
    with (tmp_path / "rejects").open("wb") as rejects:
        plan = planning.make_plan(found, open_bundle(str(tiny_bundle)), settings, rejects)
    opened: list[Any] = []

    def noted(*given: Any) -> Any:
        opened.append(given)
        return read(*given)

    expected = [rows.texts for _, rows in planning.read_parts(plan, plan.parts, settings.read)]
    monkeypatch.setattr(part_reading, "read", noted)
    reader = PartReader(plan.files, settings.read)
    for number in (0, 1, 4, 5, 2):
        assert reader.read(plan.parts[number]).texts == expected[number]
    assert len(opened) == (3 if name == "in.csv" else 2)


# -------------------------------------------------------------------------------------------------- several processes


def result_of(folder: Path) -> dict[str, bytes]:
    timed = {"run.json", "report.html", "report.txt", "_SUCCESS"}
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in timed)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_processes_write_the_same_bytes_also_when_one_is_killed_or_none_shares_the_folder(
    tiny_bundle: Path, reviews: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first to get shards is killed, the second that is ready sees no files of the run."""
    inputs = [tmp_path / "a.parquet", *[tmp_path / f"b{number}.csv" for number in range(3)]]
    reviews.head(60).to_parquet(inputs[0])
    for number, path in enumerate(inputs[1:]):
        reviews[60 + 5 * number : 65 + 5 * number].to_csv(path, index=False)
    options: dict[str, Any] = {"read": ReadSettings(part_rows=10), "compute": COMPUTE}
    run_score(inputs, tiny_bundle, tmp_path / "here", **options)
    places = [Place("one", {}), Place("two", {})]
    monkeypatch.setattr(engines, "places_of", lambda *_: places)
    killed: list[int] = []
    given: list[Any] = []
    ready: list[int] = []
    submit, event = Processes.submit, Processes._event

    def submitted(self: Processes, worker: int, task: int, payload: Any) -> None:
        given.append(payload)
        submit(self, worker, task, payload)
        if not killed:
            killed.append(self._running[worker].child.pid)
            os.kill(killed[0], signal.SIGKILL)

    def seen(self: Processes, worker: int, message: tuple[Any, ...]) -> Any:
        found = event(self, worker, message)
        if isinstance(found, Answered) and found.task is None:
            ready.append(worker)
            if len(ready) == 2:
                return found._replace(answer=found.answer._replace(reply=""))
        return found

    monkeypatch.setattr(Processes, "submit", submitted)
    monkeypatch.setattr(Processes, "_event", seen)
    result = run_score(inputs, tiny_bundle, tmp_path / "there", **options)
    assert killed
    assert {type(payload).__name__ for payload in given} == {"Shard", "Texts"}
    assert result_of(tmp_path / "there") == result_of(tmp_path / "here")
    assert result.metrics["counts"]["read"] == 75
    facts = json.loads((tmp_path / "there" / "run.json").read_bytes())
    assert facts["work"]["workers"] in (1, 2)
    assert not (tmp_path / "there" / ".staging").exists()


def test_a_child_that_is_killed_says_so() -> None:
    child = Child("batchscore.runs.engines.processes:serve", {})
    os.kill(child.pid, signal.SIGKILL)
    assert child.pipe.poll(20)
    with pytest.raises(EOFError):
        child.received()
    assert child.end() == "it died of SIGKILL (out of memory?)"


# ------------------------------------------------------------------------------------------------------------- places


def seen(monkeypatch: pytest.MonkeyPatch, *kinds: str) -> None:
    """Let this machine have GPUs of these kinds."""
    found = [Gpu(place, kind) for place, kind in enumerate(kinds)]
    monkeypatch.setattr(engines, "usable_gpus", lambda: found)


@pytest.mark.parametrize(
    ("kinds", "visible", "expected"),
    [
        pytest.param(["H100"] * 3, None, ["0", "1", "2"], id="all of one kind"),
        pytest.param(["T4", "H100", "H100"], None, ["1", "2"], id="most of them"),
        pytest.param(["H100", "T4", "T4", "H100"], None, ["0", "3"], id="as many: the kind of the first"),
        pytest.param(["H100"] * 2, "4,GPU-5d", ["4", "GPU-5d"], id="those that this process may see"),
    ],
)
def test_auto_takes_the_gpus_of_one_kind_each_for_a_process_that_sees_no_other(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str], visible: str | None, expected: list[str]
) -> None:
    seen(monkeypatch, *kinds)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    monkeypatch.setattr(engines, "alone", lambda gpu: gpus.alone(gpu, environment))
    places = engines.places_of(ComputeSettings(), {}, MANY)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places] == expected
    settings = ScoreSettings((), "", Path())
    assert pool_of(settings, {}, MANY) is not None


@pytest.mark.parametrize(
    ("compute", "recorded"),
    [
        pytest.param(ComputeSettings(device="cuda:1"), {}, id="one is asked for"),
        pytest.param(ComputeSettings(device="cpu"), {}, id="the CPU is asked for"),
        pytest.param(ComputeSettings(), {"device": "cpu"}, id="it was begun on a CPU"),
        pytest.param(ComputeSettings(backend="openvino"), {}, id="another library"),
    ],
)
def test_otherwise_this_process_scores(
    monkeypatch: pytest.MonkeyPatch, compute: ComputeSettings, recorded: dict[str, Any]
) -> None:
    seen(monkeypatch, "H100", "H100")
    assert pool_of(ScoreSettings((), "", Path(), compute=compute), recorded, MANY) is None


@pytest.mark.parametrize(("kinds", "rows"), [([], 10**6), (["H100"], 10**6), (["H100", "H100"], 19_999)])
def test_one_gpu_or_none_or_few_rows_need_no_process(
    monkeypatch: pytest.MonkeyPatch, kinds: list[str], rows: int
) -> None:
    seen(monkeypatch, *kinds)
    assert pool_of(ScoreSettings((), "", Path()), {}, rows) is None


def test_a_range_of_workers_is_for_a_cluster() -> None:
    compute = ComputeSettings(least_workers=2, workers=4)
    with pytest.raises(UsageError, match="--engine ray"):
        engines.refuse_unusable(ScoreSettings((), "", Path(), compute=compute))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8", (1, 8)), ("2-8", (2, 8)), ("3-3", (3, 3)), ("0", None), ("8-2", None), ("0-2", None), ("x", None)],
)
def test_workers_are_a_number_or_a_range(text: str, expected: tuple[int, int] | None) -> None:
    with contextlib.nullcontext() if expected else pytest.raises(click.UsageError):
        assert Workers().convert(text, None, None) == expected
