"""Runs of models with one output: in every format as plain transformers and numpy have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from numpy.typing import NDArray
from task_models import answering_at_once, check_kills, logits_of, make_model, one_number, without_page
from test_several_labels import FORMATS, SCORED, TEXTS, frame, write

from batchscore.config import ReadSettings
from batchscore.errors import DataError, UsageError
from batchscore.model.labels import parse_label_map
from batchscore.runs.inspection import inspect, verify


class World(NamedTuple):
    """A regression, and its values ``[n]`` of the texts by plain transformers (NaN where there is no text)."""

    model: Path
    expected: NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def no_page() -> Iterator[None]:
    """Pages have tests of their own."""
    with without_page():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    model = one_number(tmp_path_factory.mktemp("number") / "model")
    expected = np.full(len(TEXTS), np.nan)
    expected[SCORED] = logits_of(model, [str(TEXTS[k]) for k in SCORED])[:, 0]
    return World(model, expected)


def values_given(*, are_whole: bool = False) -> list[float | None]:
    values = np.random.default_rng(3).normal(size=len(TEXTS)) * 3
    values = values.round() if are_whole else values.round(3)
    return [None if k % 9 == 5 else float(value) for k, value in enumerate(values)]


def read(path: Path) -> Any:
    kind = path.suffix[1:]
    if kind == "csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    if kind in {"jsonl", "json"}:
        return pd.read_json(path, orient="records", lines=kind == "jsonl")
    return pd.read_parquet(path) if kind == "parquet" else pd.read_feather(path)


@pytest.mark.parametrize("output_format", ["same", *FORMATS])
def test_every_format_has_the_values_of_transformers(
    world: World, tmp_path: Path, output_format: str
) -> None:
    inputs = [write(frame(), tmp_path / f"{kind}_.{kind}") for kind in FORMATS]
    run_score(inputs, world.model, tmp_path / "run", output_format=output_format)
    for path in inputs:
        kind = path.suffix if output_format == "same" else f".{output_format}"
        table = read(tmp_path / "run" / "predictions" / f"{path.stem}{kind}")
        values = table["value"].to_numpy(dtype=float)  # transformers is 2.6e-5 from its own float64 here
        np.testing.assert_allclose(values, world.expected, rtol=1e-5, atol=3e-5)
        null = "empty_text" if path.suffix == ".csv" else "null_text"
        statuses = [null if t is None else "ok" if t.strip() else "empty_text" for t in TEXTS]
        assert table["status"].tolist() == statuses
        assert list(table.columns)[-4:] == ["value", "n_tokens", "truncated", "status"]
    assert verify(tmp_path / "run")["kind"] == "run"


def test_one_output_without_a_problem_type_is_a_sigmoid(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", ["relevant"])
    run_score(write(frame(), tmp_path / "a.parquet"), model, tmp_path / "run")
    expected = 1 / (1 + np.exp(-logits_of(model, ["wonderful film"])[0, 0]))
    assert read(tmp_path / "run/predictions/a.parquet")["value"].tolist()[-1] == pytest.approx(
        expected, abs=1e-5
    )


def mismatches_of(run: Path) -> Any:
    return pq.read_table(run / "mismatches.parquet").to_pandas()


@pytest.mark.parametrize(("kind", "tolerance"), [("csv", None), ("parquet", 0.5), ("jsonl", 2.0)])
def test_values_further_off_than_the_tolerance_are_mismatches_furthest_first(
    world: World, tmp_path: Path, kind: str, tolerance: float | None
) -> None:
    given = values_given()
    path = write(frame(score=given), tmp_path / f"a.{kind}")
    result = run_score(path, world.model, tmp_path / "run", tolerance=tolerance)
    errors = {k: world.expected[k] - g for k, g in enumerate(given) if g is not None and k in SCORED}
    rows = [k for k, error in errors.items() if abs(error) > (tolerance or 0)]
    found = mismatches_of(tmp_path / "run")
    assert sorted(found["row"]) == sorted(rows)
    assert (np.diff(found["error"].abs()) <= 1e-6).all()
    np.testing.assert_allclose(found["error"], [errors[k] for k in found["row"]], atol=1e-4)
    assert found["given_value"].tolist() == [given[k] for k in found["row"]]
    assert result.metrics["mismatches"] == (None if tolerance is None else len(rows))
    everything = list(errors.values())
    assert result.metrics["quality"]["mae"]["value"] == pytest.approx(np.abs(everything).mean(), abs=1e-5)
    assert result.metrics["counts"]["labelled"] == sum(g is not None for g in given)


def test_between_whole_numbers_half_a_unit_is_the_tolerance(world: World, tmp_path: Path) -> None:
    given = values_given(are_whole=True)
    path = write(frame(stars=given), tmp_path / "a.csv")
    result = run_score(path, world.model, tmp_path / "run")
    errors = [abs(world.expected[k] - g) for k, g in enumerate(given) if g is not None and k in SCORED]
    assert result.metrics["mismatches"] == sum(error > 0.5 for error in errors) > 0


def test_only_the_thousand_rows_furthest_off_are_listed_without_a_tolerance(
    world: World, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"text": "a film", "label": rng.normal(size=3000)})
    with answering_at_once(world.model):
        path = write(table, tmp_path / "a.parquet")
        run_score(path, world.model, tmp_path / "run", read=ReadSettings(part_rows=400))
        value = read(tmp_path / "run/predictions/a.parquet")["value"].tolist()[0]
    found = mismatches_of(tmp_path / "run")
    furthest = np.argsort(-np.abs(value - table["label"].to_numpy()), kind="stable")[:1000]
    assert len(found) == 1000
    assert set(found["row"]) == set(furthest)


def test_words_are_numbers_as_the_map_says(world: World, tmp_path: Path) -> None:
    table = frame(label=["good", "bad", "n/a", "odd"] * 7)
    path = write(table, tmp_path / "a.csv")
    maps = parse_label_map(["good=4", "bad=-1.5", "n/a="])
    result = run_score(path, world.model, tmp_path / "run", label_map=maps, tolerance=0.0)
    counts = result.metrics["counts"]
    assert (counts["labelled"], counts["unlabelled"], counts["unknown_label"]) == (14, 7, 7)
    assert set(mismatches_of(tmp_path / "run")["given_value"]) == {4.0, -1.5}
    assert result.metrics["unknown_labels"] == {"a.csv": {"odd": 7}}


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "words": ({"label": ["good", "bad"] * 14}, {}, DataError, "is a number, and this model gives numbers"),
    "two columns": (
        {"label": [1] * 28, "score": [2.0] * 28},
        {},
        DataError,
        "could be the label .label, score.",
    ),
    "a threshold": (
        {},
        {"thresholds": {"": 0.5}},
        UsageError,
        "--threshold is for models that give labels",
    ),
    "label columns": (
        {},
        {"read": ReadSettings(label_columns=("id",))},
        UsageError,
        "--label-columns is for models with several labels",
    ),
    "a label in the map": ({}, {"label_map": {"good": "POSITIVE"}}, UsageError, "a value means a number"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_is_refused_before_anything_is_scored(
    world: World, tmp_path: Path, what: str
) -> None:
    columns, options, error, words = REFUSED[what]
    path = write(frame(**columns), tmp_path / "a.parquet")
    with pytest.raises(error, match=words):
        run_score(path, world.model, tmp_path / "run", **options)
    assert not (tmp_path / "run" / "predictions").exists()


@pytest.mark.parametrize(("way", "output_format"), [("rows", "jsonl"), ("ids", "csv"), ("ids", "parquet")])
def test_an_earlier_run_is_compared_row_by_row(
    world: World, tmp_path: Path, way: str, output_format: str
) -> None:
    given = values_given()
    other = one_number(tmp_path / "model", seed=1)
    path = write(frame(label=given), tmp_path / "a.parquet")
    options = {"output_format": output_format, "read": ReadSettings(id_column="" if way == "rows" else None)}
    run_score(path, other, tmp_path / "one", **options)
    table = frame(label=given).iloc[::-1] if way == "ids" else frame(label=given)
    later = write(table, tmp_path / "later.parquet") if way == "ids" else path
    result = run_score(later, world.model, tmp_path / "two", baseline=tmp_path / "one", **options)
    found = result.metrics["comparison"]
    assert found["matched_by"] == ("id" if way == "ids" else "file and row")
    assert (found["rows"], found["unmatched"], found["relabelled"]) == (len(SCORED), 0, 0)


def test_killed_anywhere_it_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    path = write(frame(label=values_given()), tmp_path / "a.parquet")
    with answering_at_once(world.model):
        check_kills(path, world.model, tmp_path)


def test_a_run_and_a_model_are_inspected_by_their_task(world: World, tmp_path: Path) -> None:
    path = write(frame(label=values_given()), tmp_path / "a.parquet")
    run_score(path, world.model, tmp_path / "run")
    facts = inspect(str(tmp_path / "run"))
    metrics = json.loads((tmp_path / "run/metrics.json").read_bytes())
    assert facts["mae"] == metrics["quality"]["mae"]
    assert inspect(str(world.model))["task"] == metrics["task"] == "regression"
