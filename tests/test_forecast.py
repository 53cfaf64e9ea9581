"""What ``--dry-run`` says that a run would take."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest
from flow import fake_bundle
from test_cli import run

import batchscore
from batchscore.config import ReadSettings, ScoreSettings
from batchscore.formats.inputs import find_files
from batchscore.model.loading import Models, ModelSettings
from batchscore.runs.forecast import Forecast, forecast, sample
from batchscore.runs.planning import Plan, make_plan

ABOUT = Forecast(
    rows=1000,
    sampled=10,
    tokens=5,
    device="cpu",
    workers=2,
    asked=8,
    plan_seconds=4,
    worker_seconds=80,
    memory=7,
)


def planned(path: Path, settings: ScoreSettings) -> Plan:
    found = find_files(settings.inputs, None, settings.output)
    return make_plan(found, fake_bundle(), settings, io.BytesIO())


def asking(path: Path, **options: object) -> ScoreSettings:
    return ScoreSettings((str(path),), "fake", path.parent / "run", **options)  # type: ignore[arg-type]


def test_workers_share_what_the_model_takes_and_nothing_else() -> None:
    ends = 1000 * 60e-6
    assert ABOUT.seconds() == pytest.approx(4 + 40 + ends)
    assert ABOUT.seconds(8) == pytest.approx(4 + 10 + ends)
    assert (ABOUT.to_json()["seconds"], ABOUT.to_json()["asked_seconds"]) == (44.1, 14.1)


def test_the_sample_is_from_parts_all_over_a_run_but_for_what_must_be_unpacked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"text {k:04d} {'x' * 2000}\n" for k in range(5000)]
    read = ReadSettings(part_rows=500)
    (tmp_path / "a.csv").write_text("text\n" + "".join(lines))
    asked = asking(tmp_path / "a.csv", read=read)
    texts = [str(text) for text in sample(planned(tmp_path / "a.csv", asked), asked)]
    parts = {int(text[5:9]) // 500 for text in texts}
    assert (len(texts), len(parts), min(parts), max(parts)) == (8 * 64, 8, 0, 9)
    monkeypatch.setattr("batchscore.runs.forecast._NEAR_BYTES", 2_000_000)
    with gzip.open(tmp_path / "b.csv.gz", "wt", compresslevel=1) as out:
        out.write("text\n" + "".join(lines))
    asked = asking(tmp_path / "b.csv.gz", read=read)
    texts = [str(text) for text in sample(planned(tmp_path / "b.csv.gz", asked), asked)]
    assert 500 < max(int(text[5:9]) for text in texts) < 1500


def test_tokens_are_those_that_the_model_would_be_given(tiny_bundle: Path, tmp_path: Path) -> None:
    texts = ["a good film", "a good film", "poor", ""]
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f"{k},{text}\n" for k, text in enumerate(texts)))
    models = Models()
    bundle = models.open(str(tiny_bundle), None)
    asked = asking(tmp_path / "a.csv")
    plan = planned(tmp_path / "a.csv", asked)
    about = forecast(plan, bundle, asked, models, 1.0)
    assert about is not None
    model, _ = models.load(bundle, ModelSettings.of(asked, bundle), {})
    lengths = [len(model.tokenizer.encode([text], "head").input_ids[0]) for text in texts[:3]]
    assert (about.rows, about.sampled, about.tokens) == (4, 4, sum(lengths))
    assert about.worker_seconds > 0
    assert about.memory > 50e6
    elsewhere = asking(tmp_path / "a.csv", engine="ray")
    assert forecast(plan, bundle, elsewhere, models, 1.0) is None


def test_it_is_told_by_the_command_and_from_python(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,a good film\n")
    options = ("--model", tiny_bundle, "--output", tmp_path / "run", "--dry-run", "--workers", "64")
    said = run("score", tmp_path / "a.csv", *options).stdout
    assert "tokens, from a sample of 1 rows" in said
    assert "64 at a time" in said
    known = batchscore.score(tmp_path / "a.csv", tiny_bundle, dry_run=True).forecast
    told = json.loads(run("score", tmp_path / "a.csv", *options, "--json").stdout)["forecast"]
    assert known is not None
    assert known.keys() == told.keys()
    assert told["asked_workers"] == 64
    assert not (tmp_path / "run").exists()
