"""Runs of models with several labels at once: in every format as plain transformers and numpy have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_score
from numpy.typing import NDArray
from pyarrow import feather
from task_models import (
    LABELS,
    answering_at_once,
    check_kills,
    logits_of,
    metrics_of,
    several_labels,
    without_page,
)

from batchscore.config import ReadSettings
from batchscore.errors import DataError, ModelError, OutputError, UsageError
from batchscore.model.labels import parse_label_map
from batchscore.runs.inspection import verify

WORDS = ["film", "terrible", "wonderful", "a", "the", "plot", "acting", "boring", "music", "never"]
FORMATS = ("csv", "jsonl", "json", "parquet", "arrow")
TEXTS: list[str | None] = [
    *(" ".join(WORDS[(7 * k + j) % 10] for j in range(1 + 5 * k % 23)) for k in range(24)),
    None,
    " ",
    "wonderful film",
    "wonderful film",
]
SCORED = [k for k, text in enumerate(TEXTS) if text is not None and text.strip()]


class World(NamedTuple):
    """A model, and the probabilities ``[n, C]`` of :data:`TEXTS` by plain transformers (NaN where there is no text)."""

    model: Path
    expected: NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def no_page() -> Iterator[None]:
    """Pages have tests of their own."""
    with without_page():
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    model = several_labels(tmp_path_factory.mktemp("several") / "model")
    expected = np.full((len(TEXTS), len(LABELS)), np.nan)
    expected[SCORED] = 1 / (1 + np.exp(-logits_of(model, [str(TEXTS[k]) for k in SCORED])))
    return World(model, expected)


def given_sets(seed: int = 1) -> list[list[str] | None]:
    """A set of labels for each text; some are empty, some missing."""
    chosen = np.random.default_rng(seed).random((len(TEXTS), len(LABELS))) < 0.4
    sets = [[label for label, is_in in zip(LABELS, row, strict=True) if is_in] for row in chosen]
    return [None if k % 9 == 5 else each for k, each in enumerate(sets)]


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS, **columns})


def write(table: pd.DataFrame, path: Path) -> Path:
    """A file of the format that its name says."""
    kind = path.suffix[1:]
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind in {"jsonl", "json"}:
        table.to_json(path, orient="records", lines=kind == "jsonl")
    elif kind == "parquet":
        table.to_parquet(path, index=False)
    else:
        feather.write_feather(pa.Table.from_pandas(table, preserve_index=False), path)
    return path


def read(path: Path) -> Any:
    """A prediction file as a frame; lists of CSV are split again."""
    kind = path.suffix[1:]
    if kind == "csv":
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        is_ok = table["status"] == "ok"
        lists = table["predicted_labels"].fillna("").map(lambda text: text.split(";") if text else [])
        return table.assign(predicted_labels=lists.where(is_ok, None))
    if kind in {"jsonl", "json"}:
        return pd.read_json(path, orient="records", lines=kind == "jsonl")
    if kind == "parquet":
        return pq.read_table(path).to_pandas()
    return feather.read_feather(path)


def names(row: Sequence[float], thresholds: Sequence[float] = (0.5, 0.5, 0.5)) -> list[str]:
    return [label for label, p, least in zip(LABELS, row, thresholds, strict=True) if p >= least]


def assert_right(table: Any, expected: NDArray[np.float64], null: str = "null_text") -> None:
    found = table[[f"prob_{label}" for label in LABELS]].to_numpy(dtype=np.float64)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    lists = [None if isinstance(each, float | None) else list(each) for each in table["predicted_labels"]]
    assert lists == [names(row) if k in SCORED else None for k, row in enumerate(expected)]
    statuses = [null if t is None else "ok" if t.strip() else "empty_text" for t in TEXTS]
    assert table["status"].tolist() == statuses
    assert "probability" not in table
    assert [int(each) for each in table["id"]] == list(range(len(TEXTS)))


@pytest.mark.parametrize("output_format", ["same", *FORMATS])
def test_every_format_has_the_answers_of_transformers(
    world: World, tmp_path: Path, output_format: str
) -> None:
    inputs = [write(frame(), tmp_path / f"{kind}_.{kind}") for kind in FORMATS]
    run_score(inputs, world.model, tmp_path / "run", output_format=output_format)
    for path in inputs:
        kind = path.suffix if output_format == "same" else f".{output_format}"
        null = "empty_text" if path.suffix == ".csv" else "null_text"
        assert_right(read(tmp_path / "run" / "predictions" / f"{path.stem}{kind}"), world.expected, null)
    assert verify(tmp_path / "run")["kind"] == "run"


def test_a_prefix_is_put_before_each_column_and_a_name_that_is_taken_is_refused(
    world: World, tmp_path: Path
) -> None:
    path = write(frame(predicted_labels="x"), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="already has predicted_labels"):
        run_score(path, world.model, tmp_path / "refused")
    run_score(path, world.model, tmp_path / "run", prefix="m_")
    added = [name for name in read(tmp_path / "run/predictions/a.parquet").columns if name.startswith("m_")]
    probabilities = [f"m_prob_{label}" for label in LABELS]
    assert added == ["m_predicted_labels", *probabilities, "m_n_tokens", "m_truncated", "m_status"]


def joined(given: list[list[str] | None]) -> list[str | None]:
    return [None if each is None else ";".join(each) or "[]" for each in given]


def as_columns(given: list[list[str] | None]) -> dict[str, list[int | None]]:
    return {label: [None if s is None else int(label in s) for s in given] for label in LABELS}


def forms(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The same labels written in every way that is read, each with its options."""
    given = given_sets()
    ids = [None if each is None else [LABELS.index(label) for label in each] for each in given]
    words = {"toxic": "Giftig", "insult": "INSULT", "threat": "threat"}
    other = [None if each is None else [words[label] for label in each] for each in given]
    table = pa.Table.from_pandas(frame(labels=ids), preserve_index=False)
    features = {"labels": {"feature": {"names": list(LABELS), "_type": "ClassLabel"}, "_type": "List"}}
    named = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(named, folder / "class_names.parquet")
    renamed = {f"is {name}": column for name, column in as_columns(given).items()}
    maps = {"label_map": parse_label_map([f"is {label}={label}" for label in LABELS])}
    chosen = ReadSettings(label_columns=tuple(f"is {label}" for label in LABELS))
    return {
        "lists": (write(frame(labels=given), folder / "lists.parquet"), {}),
        "lists in JSON": (write(frame(tags=given), folder / "lists.jsonl"), {}),
        "joined": (write(frame(labels=joined(given)), folder / "joined.csv"), {}),
        "as Python prints": (write(frame(labels=given), folder / "printed.csv"), {}),
        "ids": (write(frame(labels=ids), folder / "ids.parquet"), {}),
        "class names": (folder / "class_names.parquet", {}),
        "other names": (
            write(frame(labels=other), folder / "other.jsonl"),
            {"label_map": {"giftig": "toxic"}},
        ),
        "columns": (write(frame(**as_columns(given)), folder / "columns.csv"), {}),
        "columns in Parquet": (write(frame(**as_columns(given)), folder / "columns.parquet"), {}),
        "chosen columns": (write(frame(**renamed), folder / "renamed.parquet"), {**maps, "read": chosen}),
    }


@pytest.fixture(scope="module")
def mismatches(world: World) -> pd.DataFrame:
    """By brute force: every row with a label and a text, where the sets differ."""
    rows = []
    for k, given in enumerate(given_sets()):
        predicted = names(world.expected[k])
        if given is not None and k in SCORED and given != predicted:
            missing = [label for label in given if label not in predicted]
            extra = [label for label in predicted if label not in given]
            rows.append((k, given, predicted, missing, extra))
    columns = ["row", "given_labels", "predicted_labels", "missing_labels", "extra_labels"]
    return pd.DataFrame(rows, columns=columns)


def assert_mismatches(run: Path, file: str, expected: pd.DataFrame) -> None:
    found = pq.read_table(run / "mismatches.parquet").to_pandas()
    found = found[found["file"] == file].sort_values("row")
    for name in expected.columns:
        lists = [list(each) if isinstance(each, np.ndarray) else each for each in found[name]]
        assert lists == expected[name].tolist(), (file, name)


def test_labels_are_read_however_they_are_written(
    world: World, mismatches: pd.DataFrame, tmp_path: Path
) -> None:
    usual = {path for path, options in forms(tmp_path).values() if not options}
    runs = [
        (sorted(usual), {}),
        *(([path], options) for path, options in forms(tmp_path).values() if options),
    ]
    assert len(runs) == 3
    labelled = sum(given is not None for given in given_sets())
    for number, (paths, options) in enumerate(runs):
        run = tmp_path / f"run {number}"
        result = run_score(paths, world.model, run, **options)
        assert result.plan is not None
        for file in result.plan.files:
            assert file.labelled == labelled, file.name
            assert_mismatches(run, file.name, mismatches)
        counts = result.metrics["counts"]
        assert counts["labelled"] == labelled * len(paths)
        assert counts["unlabelled"] == (len(TEXTS) - labelled) * len(paths)
        assert result.metrics["mismatches"] == len(mismatches) * len(paths)


def test_mismatches_for_people_have_joined_labels_that_no_spreadsheet_takes_for_a_formula(
    tmp_path: Path,
) -> None:
    labels = ("=SUM(1)", "insult", "threat")
    model = several_labels(tmp_path / "model", labels)
    table = pd.DataFrame({"text": ["a film", "the plot"], "labels": [[labels[0], "insult"], list(labels)]})
    run_score(write(table, tmp_path / "a.parquet"), model, tmp_path / "run", thresholds={"": 1.0})
    found = pd.read_csv(tmp_path / "run/mismatches.csv", keep_default_na=False)
    assert sorted(found["given_labels"]) == ["'=SUM(1);insult", "'=SUM(1);insult;threat"]
    assert (found["missing_labels"] == found["given_labels"]).all()
    assert (found["predicted_labels"] == "").all()


def test_thresholds_decide_and_count_for_the_fingerprint(world: World, tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "a.parquet")
    thresholds = (0.3, 0.9, 0.5)
    options = {"": 0.5, "toxic": 0.3, "Insult": 0.9}
    run_score(path, world.model, tmp_path / "run", thresholds=options)
    found = read(tmp_path / "run/predictions/a.parquet")["predicted_labels"]
    assert [list(found[k]) for k in SCORED] == [names(world.expected[k], thresholds) for k in SCORED]
    facts = json.loads((tmp_path / "run/run.json").read_bytes())
    assert facts["model"]["thresholds"] == list(thresholds)
    assert facts["model"]["task"] == "multi_label"
    with pytest.raises(OutputError, match="other options"):
        run_score(path, world.model, tmp_path / "run")


def test_a_probability_that_is_written_as_the_threshold_is_enough(world: World, tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "a.csv")
    run_score(path, world.model, tmp_path / "run")
    first = read(tmp_path / "run/predictions/a.csv")["prob_toxic"].tolist()[0]
    run_score(path, world.model, tmp_path / "again", thresholds={"toxic": first})
    assert "toxic" in read(tmp_path / "again/predictions/a.csv")["predicted_labels"].tolist()[0]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "no label": ({"labels": ["spam;ham"] * 28}, {}, DataError, "none of the values .*--label-map"),
    "lone numbers": ({"label": [0, 1] * 14}, {}, DataError, "one number.*--label-map ids.*--label-columns"),
    "ids from 1": ({"labels": [[1, 2]] * 28}, {}, DataError, "from 0 or from 1.*--label-map ids"),
    "fractions": ({label: [0.5] * 28 for label in LABELS}, {}, DataError, "neither 0 nor 1 .0.5."),
    "both ways": (
        {**{label: [0] * 28 for label in LABELS}, "labels": ["toxic"] * 28},
        {},
        DataError,
        "--label-column labels or --label-columns toxic,insult,threat",
    ),
    "two columns": ({"labels": ["toxic"] * 28, "tags": ["toxic"] * 28}, {}, DataError, "could be the label"),
    "a column left out": (
        {label: [0] * 28 for label in LABELS},
        {"read": ReadSettings(label_columns=("toxic", "insult"))},
        DataError,
        "no column for threat",
    ),
    "no such column": ({}, {"read": ReadSettings(label_columns=LABELS)}, DataError, "no column toxic"),
    "no label's column": (
        {},
        {"read": ReadSettings(label_columns=("id",))},
        UsageError,
        "--label-map id=LABEL",
    ),
    "a threshold of none": ({}, {"thresholds": {"spam": 0.5}}, UsageError, "the model's labels are toxic"),
    "a tolerance": ({}, {"tolerance": 1.0}, UsageError, "--tolerance is for models that give a number"),
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


def test_labels_that_cannot_be_joined_are_refused_for_csv_alone(tmp_path: Path) -> None:
    model = several_labels(tmp_path / "model", ("a;b", "c"))
    table = pd.DataFrame({"text": ["a film", "the plot"], "labels": ["a;b", "c"]})
    with pytest.raises(DataError, match=r"a;b cannot stand in a list.*--output-format parquet"):
        run_score(write(table, tmp_path / "a.csv"), model, tmp_path / "run")
    result = run_score(tmp_path / "a.csv", model, tmp_path / "run", output_format="parquet")
    assert result.metrics["counts"]["labelled"] == 2


def test_generic_labels_need_a_map(tmp_path: Path) -> None:
    model = several_labels(tmp_path / "model", ("LABEL_0", "LABEL_1", "LABEL_2"))
    path = write(
        pd.DataFrame({"text": ["a film", "the plot"], "labels": ["bad;rude", "bad"]}), tmp_path / "a.csv"
    )
    assert "mismatches" not in run_score(path, model, tmp_path / "ignored").metrics
    maps = parse_label_map(["bad=LABEL_0", "rude=LABEL_2"])
    assert run_score(path, model, tmp_path / "run", label_map=maps).metrics["counts"]["labelled"] == 2


def test_a_row_with_an_unknown_label_is_not_evaluated_and_one_of_no_label_is(
    world: World, tmp_path: Path
) -> None:
    table = pd.DataFrame({"text": ["a", "b", "c", "d"], "labels": ["toxic;odd", "clean", "toxic", "[]"]})
    path = write(table, tmp_path / "a.csv")
    result = run_score(path, world.model, tmp_path / "run", label_map={"clean": ""})
    counts = result.metrics["counts"]
    assert (counts["labelled"], counts["unknown_label"], counts["unlabelled"]) == (3, 1, 0)
    assert result.metrics["unknown_labels"] == {"a.csv": {"odd": 1}}


def test_windows_are_averaged_and_a_limit_is_obeyed(world: World, tmp_path: Path) -> None:
    text = " ".join(WORDS * 90)
    table = pd.DataFrame({"text": [text, "a film", "the plot"], "labels": ["toxic", "insult", "threat"]})
    path = write(table, tmp_path / "a.parquet")
    options = {"long_text": "windows", "limit": 2}
    result = run_score(path, world.model, tmp_path / "run", **options)
    found = read(tmp_path / "run/predictions/a.parquet")
    assert result.rows == len(found) == 2
    from batchscore.model.bundle import open_bundle
    from batchscore.model.tokenization import Tokenizer

    encodings = Tokenizer(open_bundle(str(world.model))).encode([text], "windows")
    import torch
    from transformers import AutoModelForSequenceClassification

    net = AutoModelForSequenceClassification.from_pretrained(world.model, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = [net(torch.tensor([ids.tolist()])).logits[0].double().numpy() for ids in encodings.input_ids]
    assert len(logits) > 1
    expected = np.average(1 / (1 + np.exp(-np.stack(logits))), axis=0, weights=encodings.weight)
    first = found[[f"prob_{label}" for label in LABELS]].to_numpy()[0]
    np.testing.assert_allclose(first, expected, atol=1e-5)


@pytest.mark.parametrize(("way", "output_format"), [("rows", "csv"), ("ids", "jsonl"), ("ids", "parquet")])
def test_an_earlier_run_is_compared_row_by_row(
    world: World, tmp_path: Path, way: str, output_format: str
) -> None:
    before, now = given_sets(), given_sets(seed=2)
    table = frame(labels=now).iloc[::-1] if way == "ids" else frame(labels=now)
    path = write(table, tmp_path / ("now.parquet" if way == "ids" else "before.parquet"))
    options: dict[str, Any] = {"output_format": output_format}
    (tmp_path / "first").mkdir()
    first = write(frame(labels=before), tmp_path / "first" / "before.parquet")
    run_score(first, world.model, tmp_path / "one", **options)
    read_settings = ReadSettings(id_column="" if way == "rows" else None)
    result = run_score(
        path,
        world.model,
        tmp_path / "two",
        baseline=tmp_path / "one",
        thresholds={"": 0.7},
        read=read_settings,
        **options,
    )
    found = result.metrics["comparison"]
    assert found["matched_by"] == ("id" if way == "ids" else "file and row")
    changed = sum(names(world.expected[k]) != names(world.expected[k], (0.7,) * 3) for k in SCORED)
    assert changed
    unmatched = int(output_format == "csv")  # a null text, which is an empty one there
    assert (found["rows"], found["changed"], found["unmatched"]) == (len(SCORED), changed, unmatched)
    both = [k for k in SCORED if before[k] is not None and now[k] is not None]
    assert found["relabelled"] == sum(before[k] != now[k] for k in both)


def test_an_earlier_run_of_another_task_is_refused(world: World, tiny_model: Path, tmp_path: Path) -> None:
    path = write(frame(), tmp_path / "a.csv")
    run_score(path, tiny_model, tmp_path / "one")
    with pytest.raises(ModelError, match="its model's task is single_label"):
        run_score(path, world.model, tmp_path / "two", baseline=tmp_path / "one")


def test_metrics_say_their_task(world: World, tmp_path: Path) -> None:
    run_score(write(frame(labels=given_sets()), tmp_path / "a.parquet"), world.model, tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert metrics["task"] == "multi_label"
    assert metrics["quality"]["micro_f1"]["low"] <= metrics["quality"]["micro_f1"]["value"]


def test_killed_anywhere_it_ends_with_the_same_bytes(world: World, tmp_path: Path) -> None:
    path = write(frame(labels=joined(given_sets())), tmp_path / "a.csv")
    with answering_at_once(world.model):
        check_kills(path, world.model, tmp_path, thresholds={"toxic": 0.4})
