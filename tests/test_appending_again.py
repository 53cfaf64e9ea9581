"""The data set of runs that are made again, on another night, or by an inbox whose call was stopped before it appended."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import run_score
from task_models import AtOnce, answering_at_once, without_page

from batchscore import cli
from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import OutputError
from batchscore.inbox import drop_folder as drop
from batchscore.inbox import scoring_process
from batchscore.inbox.scoring_process import Job, Outcome
from batchscore.model.loading import KeptModels
from batchscore.runs import run as runs
from batchscore.runs.dataset import DataSet, refuse_unappendable
from batchscore.system import storage

PARQUET: dict[str, Any] = {"output_format": "parquet"}


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model), without_page():
        yield tiny_model


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    path = tmp_path / "r.csv"
    pd.DataFrame({"id": range(4), "text": [f"text {k}" for k in range(4)]}).to_csv(path, index=False)
    return path


def contents(lake: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(lake.iterdir())]


# ------------------------------------------------------------------------------------------------ nights


def test_the_same_bytes_on_another_night_are_appended_too(quick: Path, reviews: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {**PARQUET, "append_to": tmp_path / "lake"}
    first = run_score(reviews, quick, tmp_path / "nn/2026-11-25", **options)
    second = run_score(reviews, quick, tmp_path / "nn/2026-11-26", **options)
    third = run_score(reviews, quick, tmp_path / "run", **options, date=datetime.date(2026, 11, 27))
    files = [*first.appended, *second.appended, *third.appended]
    assert [path.name[:10] for path in files] == ["2026-11-25", "2026-11-26", "2026-11-27"]
    assert sorted((tmp_path / "lake").iterdir()) == files
    assert all(run.appended_before == () for run in (first, second, third))


def test_what_is_there_already_is_said(quick: Path, reviews: Path, tmp_path: Path) -> None:
    common = ["--model", quick, "--output-format", "parquet", "--append-to", tmp_path / "lake", "--json"]
    told, said = [], []
    for folder in ("one", "other"):  # the same run, of no night
        ran = CliRunner().invoke(
            cli.main, ["score", str(reviews), "--output", str(tmp_path / folder), *map(str, common)]
        )
        assert ran.exit_code == 0, ran.output
        told.append(json.loads(ran.stdout.splitlines()[-1]))
        said.append(ran.stderr)
    (there,) = (tmp_path / "lake").iterdir()
    assert "appended_before" not in told[0]
    assert told[1]["appended"] == told[1]["appended_before"] == [str(there)]
    assert f"appended to the data set: {there}" in said[0]
    assert f"in the data set already, so nothing is appended: {there}" in said[1]


# ------------------------------------------------------------------------------------------------ made again


@pytest.mark.parametrize("is_upgraded", [False, True])
def test_a_run_made_again_takes_its_own_place(
    is_upgraded: bool, quick: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other last digits, and with other libraries, and so another fingerprint."""
    options: dict[str, Any] = {**PARQUET, "append_to": tmp_path / "lake"}
    run_score(reviews, quick, tmp_path / "2026-11-24", **options)
    (there,) = run_score(reviews, quick, tmp_path / "2026-11-25", **options).appended
    other = contents(tmp_path / "lake")[0]
    old = there.read_bytes()
    logits = AtOnce.logits
    monkeypatch.setattr(AtOnce, "logits", lambda self, batch: logits(self, batch) * 1.0001)
    if is_upgraded:
        monkeypatch.setattr(runs, "installed_version", lambda _: "another")
    again = run_score(reviews, quick, tmp_path / "2026-11-25", **options, force=True)
    new = (tmp_path / "2026-11-25/predictions/r.parquet").read_bytes()
    assert new != old
    assert again.appended == (there,)
    assert again.appended_before == ()
    assert contents(tmp_path / "lake") == [other, new]


def test_without_force_another_content_is_refused_and_kept(
    quick: Path, reviews: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {**PARQUET, "append_to": tmp_path / "lake"}
    (there,) = run_score(reviews, quick, tmp_path / "run", **options).appended
    pq.write_table(pq.read_table(there).slice(0, 1), there)
    changed_there = there.read_bytes()
    with pytest.raises(OutputError, match=r"has another content.*--force"):
        run_score(reviews, quick, tmp_path / "run", **options)
    assert there.read_bytes() == changed_there
    run_score(reviews, quick, tmp_path / "run", **options, force=True)
    assert contents(tmp_path / "lake") == [(tmp_path / "run/predictions/r.parquet").read_bytes()]


def test_another_model_or_option_is_another_run_and_a_gate_or_a_new_default_is_not(
    quick: Path, reviews: Path, tmp_path: Path
) -> None:
    lake = tmp_path / "lake"
    run_score(reviews, quick, tmp_path / "run", **PARQUET)
    facts = json.loads((tmp_path / "run/run.json").read_bytes())
    data_set = DataSet(lake)

    def count(changes: dict[str, Any]) -> int:
        data_set.append(tmp_path / "run", {**facts, **changes}, replace=True)
        return len(list(lake.iterdir()))

    options = facts["options"]
    assert count({}) == 1
    assert count({"fingerprint": "f" * 64}) == 1
    assert count({"options": {**options, "fail_below": ["accuracy=0.5"], "with_text": False}}) == 1
    assert count({"options": {name: value for name, value in options.items() if name != "engine"}}) == 1
    assert count({"options": {**options, "long_text": "split"}}) == 2
    assert count({"options": {**options, "compute": {**options["compute"], "device": "cuda:0"}}}) == 3
    assert count({"model": {**facts["model"], "fingerprint": "0" * 64}}) == 4
    assert count({"date": "2026-11-25"}) == 5
    assert count({"files": [{**facts["files"][0], "sha256": "0" * 64}]}) == 6


def test_a_data_set_that_cannot_be_made_is_named(quick: Path, reviews: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot create .*Name another --append-to\.$"):
        run_score(reviews, quick, tmp_path / "run", **PARQUET, append_to=tmp_path / "file/lake")


# ------------------------------------------------------------------------------------------------ inbox


class InThisProcess:
    """The scoring process, without a process."""

    def __init__(self, settings: ScoreSettings, *_: Any) -> None:
        self._settings, self._models = settings, KeptModels()

    def prepare(self) -> None: ...

    def score(self, job: Job) -> Outcome:
        return scoring_process._outcome(job, self._settings, self._models, quiet=True)

    def close(self) -> None: ...


@pytest.fixture
def inbox(quick: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InboxSettings:
    """An inbox with the reviews in it, and a data set that is not there yet."""
    monkeypatch.setattr(drop, "ScoringProcess", InThisProcess)
    (tmp_path / "in").mkdir()
    shutil.copy(reviews, tmp_path / "in")
    score = ScoreSettings((), str(quick), tmp_path / "out", append_to=tmp_path / "lk/x", **PARQUET)
    return InboxSettings(tmp_path / "in", tmp_path / "out", score, settle=0.0)


def take(inbox: InboxSettings) -> drop.FileOutcome:
    (outcome,) = drop.empty(inbox, lambda _: None).files
    return outcome


def runs_of(inbox: InboxSettings) -> list[str]:
    return [path.name for day in inbox.output.iterdir() for path in day.iterdir()]


def predictions_of(outcome: drop.FileOutcome) -> list[bytes]:
    return [(Path(outcome.folder) / "predictions/r.parquet").read_bytes()]


def test_a_file_whose_append_failed_waits_and_is_appended_when_it_can_be(
    inbox: InboxSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        refuse = refuse_unappendable

        def refused_late(*args: Any) -> None:
            refuse(*args)
            (tmp_path / "lk").touch()

        patched.setattr("batchscore.runs.run.refuse_unappendable", refused_late)
        assert take(inbox)[1:3] == ("waiting", 73)
    for _ in range(2):
        outcome = take(inbox)
        assert outcome[1:3] == ("waiting", 73)
        assert outcome.message.endswith("Name another --append-to.")
    assert len(runs_of(inbox)) == 1  # and not once more, as if another run were there
    (tmp_path / "lk").unlink()
    outcome = take(inbox)
    assert outcome[1:3] == ("done", 0)
    assert contents(tmp_path / "lk/x") == predictions_of(outcome)
    assert (inbox.inbox / "done/r.csv").exists()
    assert len(runs_of(inbox)) == 1


def test_a_file_whose_call_was_killed_before_its_append_is_appended(
    inbox: InboxSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(DataSet, "append", kill)
        with pytest.raises(KilledError):
            take(inbox)
    assert not (tmp_path / "lk").exists()
    outcome = take(inbox)
    assert outcome[1:3] == ("done", 0)
    assert contents(tmp_path / "lk/x") == predictions_of(outcome)


def test_a_folder_of_another_content_is_passed_over_and_what_is_there_is_said(
    inbox: InboxSettings, reviews: Path, tmp_path: Path
) -> None:
    first = take(inbox)
    assert first.message == ""
    shutil.copy(reviews, inbox.inbox)
    again = take(inbox)
    (there,) = (tmp_path / "lk/x").iterdir()
    assert (again.status, again.message) == ("done", f"in the data set already: {there}")
    facts = json.loads((Path(first.folder) / "run.json").read_bytes())
    facts["options"]["long_text"] = "split"
    storage.write_bytes(Path(first.folder) / "run.json", storage.to_json({**facts, "fingerprint": "f"}))
    shutil.copy(reviews, inbox.inbox)
    other = take(inbox)
    assert (other.status, other.folder) == ("scored", f"{first.folder}-2")
