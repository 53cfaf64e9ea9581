"""Links planted where a run, the inbox, a data set, a page or a training will write: what they lead to stays as it was.

Every file that is made, opened for writing, renamed or removed is heard (:mod:`audited_writes`). So a new one is tried here by
itself, and one that is opened by its name, whatever lies there, is told.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from audited_writes import Writes, writes_below
from conftest import run_score
from task_models import answering_at_once, without_page
from test_appending_again import InThisProcess

from batchscore import score as score_from_python
from batchscore.config import Allowance, EvaluateSettings, InboxSettings, ReadSettings, ScoreSettings
from batchscore.errors import BatchscoreError, OutputError
from batchscore.formats.staged import stage_shard
from batchscore.inbox import drop_folder as drop
from batchscore.inbox.housekeeping import remove_run
from batchscore.runs import scoring_parts, shards
from batchscore.runs.evaluating import evaluate
from batchscore.runs.trend import write_trend
from batchscore.training import work_folder

THEIRS = b"theirs"
OPTIONS: dict[str, Any] = {
    "read": ReadSettings(part_rows=4),
    "max_rejects": Allowance.parse("1"),
    "partition_by": "day",
}


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled rows of two days, and one that cannot be read."""
    path = tmp_path_factory.mktemp("data") / "r.csv"
    rows = {"id": range(6), "text": "text", "label": ["NEGATIVE", "POSITIVE"] * 3, "day": [1, 2] * 3}
    path.write_text(pd.DataFrame(rows).to_csv(index=False) + "7,a\n")
    return path


class Stopped(BaseException):
    """A run was stopped here."""


def stopped_run(reviews: Path, model: Path, output: Path, **options: Any) -> None:
    """A run that is stopped after its first part."""

    def stop(path: Any, *args: Any) -> str:
        if path.name.startswith("00000001"):
            raise Stopped
        return stage_shard(path, *args)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stopped):
        patch.setattr(shards, "stage_shard", stop)
        run_score(reviews, model, output, **options)


def filled_inbox(reviews: Path, model: Path, folder: Path) -> InboxSettings:
    """A file with a marker that can be scored, and one that cannot."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    shutil.copy(reviews, folder / "in/r.csv")
    (folder / "in/bad.csv").write_text("nothing\n1\n")
    for name in ("r.csv.done", "bad.csv.done"):
        (folder / "in" / name).touch()
    asked = ScoreSettings((), str(model), folder / "out", max_rejects=Allowance.parse("1"))
    return InboxSettings(folder / "in", folder / "out", asked, settle=0.0)


def everything(reviews: Path, model: Path, folder: Path) -> None:
    """A little of all that writes into folders that the user named."""
    nights = folder / "nights"
    with contextlib.suppress(BatchscoreError):  # refused, which is noted
        run_score(reviews.with_name("none.csv"), model, nights / "2026-11-24")
    run_score(reviews, model, nights / "2026-11-24", max_rejects=OPTIONS["max_rejects"])
    stopped_run(reviews, model, nights / "2026-11-25", **OPTIONS, baseline=nights / "2026-11-24")
    run_score(reviews, model, nights / "2026-11-25", **OPTIONS, baseline=nights / "2026-11-24")
    again = {**OPTIONS, "force": True, "prefix": "p_"}
    run_score(reviews, model, nights / "2026-11-25", **again)
    parquet = {**OPTIONS, "partition_by": None, "output_format": "parquet", "append_to": folder / "lake"}
    run_score(reviews, model, nights / "2026-11-26", **parquet)
    score_from_python(pd.read_csv(reviews, nrows=6), model, folder / "nights/python")
    with pytest.raises(BatchscoreError, match="rows cannot be read"):
        run_score(reviews, model, nights / "2026-11-27", read=OPTIONS["read"])
    drop.empty(filled_inbox(reviews, model, folder), lambda _: None)
    for first, name in enumerate(("one", "two")):
        labels = folder / "in" / f"{name}.jsonl"
        labels.write_text(f'{{"file": "{reviews.name}", "row": {first}, "label": "pos"}}\n', encoding="utf-8")
        evaluate(EvaluateSettings(nights / "2026-11-26", (labels,)))
    write_trend(nights)
    remove_run(nights / "2026-11-25", nights)


NIGHTS = [f"2026-11-{day}" for day in range(24, 28)] + ["python"]


@pytest.fixture(scope="module")
def heard(quick: Path, reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Writes]:
    """A folder, and all that was done below the folders in it that the user named."""
    folder = tmp_path_factory.mktemp("heard")
    with pytest.MonkeyPatch.context() as patch, writes_below(folder) as writes:
        patch.setattr(drop, "ScoringProcess", InThisProcess)
        everything(reviews, quick, folder)
    return folder, writes


def below(heard: tuple[Path, Writes], *names: str) -> list[str]:
    """Files and folders that were made below a folder, and the folders that they lie in."""
    folder = heard[0].joinpath(*names)
    made = {path.relative_to(folder) for path in heard[1].made if folder in path.parents}
    return sorted({str(each) for path in made for each in (path, *path.parents)} - {"."})


# ------------------------------------------------------------------------------------------------ all that is written


def test_all_is_written_below_a_handle_and_nothing_by_a_name_that_may_be_a_link(
    heard: tuple[Path, Writes],
) -> None:
    folder, writes = heard
    named = ["nights", *(f"nights/{name}" for name in NIGHTS), "lake", "out"]
    of_the_user = {f"{event} {folder / name}" for event in ("os.mkdir", "os.rmdir") for name in named}
    of_this_test = {each for each in writes.by_name if re.search(r" \S+/in(/[a-z.]+)?$", each)}
    assert writes.by_name - of_this_test <= of_the_user


def test_nothing_is_made_that_is_not_heard(heard: tuple[Path, Writes]) -> None:
    """What a library would write by itself, outside of Python."""
    folder, writes = heard
    there = {Path(root, name) for root, folders, files in os.walk(folder) for name in folders + files}
    evaluation = folder / "nights" / "2026-11-26.evaluation"
    built = (
        evaluation.with_name(f".{evaluation.name}.work") / "final"
    )  # a folder that got its name as a whole
    moved = {evaluation / path.relative_to(built) for path in writes.made if built in path.parents}
    assert there | writes.removed <= writes.made | moved


def test_all_kinds_of_files_are_heard(heard: tuple[Path, Writes]) -> None:
    run = below(heard, "nights", "2026-11-25")
    names = {re.sub(r"[0-9a-f]{32}|[0-9a-f]{16}", "*", name) for name in run}
    staged = {"journal.jsonl", "plan.json", "parts", "parts/00000000.arrow", "micro-batches/00000000.journal"}
    final = {
        "predictions/day=1/r.csv",
        "mismatches.csv",
        "rejects.jsonl",
        "run.json",
        "report.html",
        "_SUCCESS",
    }
    assert {f".staging/*/{name}" for name in {*staged, *(f"final/{name}" for name in final)}} <= names
    assert {*final, ".staging/replaced.json", ".staging/*/baseline/high", ".staging/*/final/.*.tmp"} <= names
    assert {"done/r.csv", "failed/bad.csv", ".attempts.json"} <= set(below(heard, "in"))
    assert {"report.html", "report.json", "report.txt", "2026-11-24/refused.json"} <= set(
        below(heard, "nights")
    )
    assert below(heard, "nights", ".python.data")
    assert below(heard, "lake")


# ------------------------------------------------------------------------------------------------------------ planted


class Theirs:
    """A file and a folder of somebody else's, to which links lead."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        (folder / "folder").mkdir(parents=True)
        for name in ("file", "folder/file"):
            (folder / name).write_bytes(THEIRS)

    def plant(self, path: Path, *, is_folder: bool) -> None:
        """A link of that name to the one or the other."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(self._folder / ("folder" if is_folder else "file"))

    def are_as_before(self) -> bool:
        found = {str(path.relative_to(self._folder)) for path in self._folder.rglob("*")}
        is_same = all((self._folder / name).read_bytes() == THEIRS for name in ("file", "folder/file"))
        return found == {"file", "folder", "folder/file"} and is_same


@pytest.fixture
def theirs(tmp_path: Path) -> Theirs:
    return Theirs(tmp_path / "theirs")


@pytest.mark.parametrize("is_found_at_once", [True, False])
def test_no_link_in_a_run_folder_is_followed(
    heard: tuple[Path, Writes],
    quick: Path,
    reviews: Path,
    tmp_path: Path,
    theirs: Theirs,
    monkeypatch: pytest.MonkeyPatch,
    is_found_at_once: bool,
) -> None:
    places = below(heard, "nights", "2026-11-25")
    if not is_found_at_once:  # as if they came later
        monkeypatch.setattr("batchscore.runs.opening.refuse_links", lambda _: None)
        places = one_of_a_kind(places)
    scored: list[str] = []
    monkeypatch.setattr(scoring_parts.Scoring, "score", _noting(scoring_parts.Scoring.score, scored))
    folders = {str(Path(place).parent) for place in places}
    followed = []
    for number, place in enumerate(places):
        output = tmp_path / str(number)
        (output / ".staging").mkdir(parents=True)
        if place == ".staging":
            (output / ".staging").rmdir()
        theirs.plant(output / place, is_folder=place in folders)
        scored.clear()
        try:
            run_score(reviews, quick, output, **OPTIONS)
            is_refused = False
        except OutputError:
            is_refused = True
        if not theirs.are_as_before() or (is_found_at_once and (not is_refused or scored)):
            followed.append(place)
    assert followed == []


def one_of_a_kind(places: list[str]) -> list[str]:
    """Of names that differ in a number or a hash only, the first; of staging folders, that of the run without ``--force``."""
    (staged,) = {place.split("/")[1] for place in places if place.endswith("/baseline")}
    ours = [place for place in places if not re.match(rf"\.staging/(?!{staged})[0-9a-f]{{32}}", place)]
    ours = [
        place for place in ours if "/final/" not in place or place.endswith("/final/run.json")
    ]  # all as one: it is emptied
    kinds = {re.sub(r"[0-9a-f]{16}|\d+", "*", place): place for place in reversed(ours)}
    return sorted(kinds.values())


def _noting(function: Any, calls: list[str]) -> Any:
    def noted(*args: Any) -> Any:
        calls.append(function.__name__)
        return function(*args)

    return noted


@pytest.mark.parametrize("place", ["parts", "micro-batches", "journal.jsonl"])
def test_a_link_put_there_on_the_way_ends_the_run_which_goes_on_when_it_is_gone(
    quick: Path, reviews: Path, tmp_path: Path, theirs: Theirs, place: str
) -> None:
    run_score(reviews, quick, tmp_path / "whole", **OPTIONS)
    stopped_run(reviews, quick, tmp_path / "run", **OPTIONS)
    (staged,) = (path for path in (tmp_path / "run/.staging").iterdir() if path.is_dir())
    is_folder = (staged / place).is_dir()
    (staged / place).rename(tmp_path / "kept")
    theirs.plant(staged / place, is_folder=is_folder)
    with pytest.raises(OutputError, match=f"{re.escape(str(staged / place))}: it is a link"):
        run_score(reviews, quick, tmp_path / "run", **OPTIONS)
    assert theirs.are_as_before()
    (staged / place).unlink()
    (tmp_path / "kept").rename(staged / place)
    run_score(reviews, quick, tmp_path / "run", **OPTIONS)
    for name in ("predictions/day=1/r.csv", "metrics.json", "mismatches.parquet"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(
    quick: Path, reviews: Path, tmp_path: Path
) -> None:
    for name in (".staging/holder.json", "predictions", "run.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / ".staging").mkdir(parents=True)
        os.mkfifo(folder / name)
        with pytest.raises(OutputError, match="it is a pipe"):
            run_score(reviews, quick, folder, **OPTIONS)


def test_a_run_folder_that_the_user_names_by_a_link_is_taken(
    quick: Path, reviews: Path, tmp_path: Path
) -> None:
    (tmp_path / "disk/runs").mkdir(parents=True)
    (tmp_path / "runs").symlink_to("disk/runs")
    (tmp_path / "disk/runs/one").mkdir()
    (tmp_path / "disk/runs/latest").symlink_to("one")
    for name in ("runs/latest", "runs/two"):
        run_score(reviews, quick, tmp_path / name, **OPTIONS)
    assert (tmp_path / "disk/runs/one/_SUCCESS").exists()
    assert (tmp_path / "disk/runs/two/_SUCCESS").exists()


def test_no_link_in_an_inbox_or_its_output_is_followed(
    heard: tuple[Path, Writes],
    quick: Path,
    reviews: Path,
    tmp_path: Path,
    theirs: Theirs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drop, "ScoringProcess", InThisProcess)
    own = [f"in/{place}" for place in below(heard, "in") if not re.match(r"(r|bad)\.csv", place)]
    own += [f"out/{place}" for place in below(heard, "out") if place.count("/") < 2]  # deeper: a run's own
    assert {"in/.attempts.json", "in/done", "in/failed"} <= set(own)
    folders = {str(Path(place).parent) for place in [*own, "out/x/y/z"]}
    folders |= {place for place in own if place.startswith("out/")}
    followed = []
    for number, place in enumerate(own):
        settings = filled_inbox(reviews, quick, tmp_path / str(number))
        theirs.plant(tmp_path / str(number) / place, is_folder=place in folders)
        try:
            result = drop.empty(settings, lambda _: None)
            assert not any(file.status == "failed" and file.name == "r.csv" for file in result.files)
        except OutputError:
            pass
        if not theirs.are_as_before():
            followed.append(place)
    assert followed == []


@pytest.mark.parametrize("force", [False, True])
def test_a_link_in_the_place_of_a_file_in_a_data_set_is_refused(
    quick: Path, reviews: Path, tmp_path: Path, theirs: Theirs, force: bool
) -> None:
    options = {**OPTIONS, "partition_by": None, "output_format": "parquet", "append_to": tmp_path / "lake"}
    (there,) = run_score(reviews, quick, tmp_path / "run", **options).appended
    there.unlink()
    theirs.plant(there, is_folder=False)
    with pytest.raises(OutputError, match="it is a link"):
        run_score(reviews, quick, tmp_path / "run", **options, force=force)
    assert theirs.are_as_before()


def test_a_link_in_the_place_of_the_trend_s_page_is_replaced_itself(
    heard: tuple[Path, Writes], quick: Path, reviews: Path, tmp_path: Path, theirs: Theirs
) -> None:
    run_score(reviews, quick, tmp_path / "nights/2026-11-24", **OPTIONS)
    for name in below(heard, "nights"):
        if "/" not in name and name not in NIGHTS and not name.startswith(".python"):
            theirs.plant(tmp_path / "nights" / name, is_folder=False)
    write_trend(tmp_path / "nights")
    assert theirs.are_as_before()
    assert not (tmp_path / "nights/report.html").is_symlink()


# ----------------------------------------------------------------------------------------------------------- trainings


def test_a_link_in_the_place_of_a_training_s_folder_is_refused(tmp_path: Path, theirs: Theirs) -> None:
    theirs.plant(tmp_path / ".out.training", is_folder=True)
    with pytest.raises(OutputError, match="it is a link"), training(tmp_path):
        pass
    assert theirs.are_as_before()


def training(folder: Path, *, resume: bool = False) -> contextlib.AbstractContextManager[Path]:
    return work_folder.work_folder(folder / "out", force=False, resume=resume)


def test_what_was_planted_in_a_training_s_folder_is_removed_itself_and_refused_where_it_goes_on(
    tmp_path: Path, theirs: Theirs
) -> None:
    work = tmp_path / ".out.training"
    theirs.plant(work / "checkpoints/unfinished", is_folder=True)
    theirs.plant(work / "started.json", is_folder=False)
    with pytest.raises(OutputError, match="unfinished: it is a link"), training(tmp_path, resume=True):
        pass
    with training(tmp_path) as there:
        assert list(there.iterdir()) == []
        assert there.stat().st_mode & 0o077 == 0  # libraries write by names below, where nobody else comes in
    assert theirs.are_as_before()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_training_does_not_begin_in_another_user_s_folder(tmp_path: Path) -> None:
    (tmp_path / ".out.training").mkdir()
    os.chown(tmp_path / ".out.training", 12345, -1)
    with pytest.raises(OutputError, match="another user's folder"), training(tmp_path):
        pass
