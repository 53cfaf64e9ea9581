"""Labels that come after a run: joined by id or by row, in instalments, to the same bytes as labels from the start."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from conftest import run_score
from task_models import LABELS, one_number, several_labels, without_page

import batchscore
from batchscore.config import EvaluateSettings, ReadSettings
from batchscore.errors import (
    BatchscoreError,
    DataError,
    GateFailedError,
    NoInputError,
    OutputError,
    UsageError,
)
from batchscore.runs.as_written import changes_in
from batchscore.runs.evaluating import EvaluationResult, evaluate
from batchscore.runs.evaluation_folder import evaluation_of
from batchscore.runs.folder import LABELS as KEPT
from batchscore.runs.folder import METRICS, MISMATCHES, MISMATCHES_CSV
from batchscore.runs.nights import read_nights
from batchscore.system.own_paths import OwnPath

pytestmark = pytest.mark.usefixtures("quick_runs")
ROWS = 2100
"""More than a part has, so that what depends on parts is seen."""
WORDS = ["good", "bad", "film", "fine", "awful", "plot", "very", "not", "so", "never"]


@pytest.fixture(scope="module", autouse=True)
def no_page() -> Iterator[None]:
    """Pages have tests of their own; one here looks at one."""
    with without_page():
        yield


class World(NamedTuple):
    """A table with labels, the run that had them from the start, and the same without them."""

    table: pd.DataFrame
    model: Path
    labelled: Path
    plain: Path


def made(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(rows)]
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "text": [None if k % 97 == 5 else text for k, text in enumerate(texts)],
            "shop": rng.choice(["a", "b"], rows),
            "label": [
                None if k % 50 == 3 else label for k, label in enumerate(rng.choice(["neg", "pos"], rows))
            ],
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> World:
    folder, table = tmp_path_factory.mktemp("late"), made(ROWS)
    for name, columns in (("labelled", table), ("plain", table.drop(columns="label"))):
        (folder / "in" / name).mkdir(parents=True)
        columns.to_csv(folder / "in" / name / "r.csv", index=False)
        path = folder / "in" / name / "r.csv"
        run_score(path, tiny_bundle, folder / name, slice_columns=("shop",))
    shutil.rmtree(folder / "in")  # so no evaluation can look at an input
    return World(table, tiny_bundle, folder / "labelled", folder / "plain")


def late(
    run: Path, table: pd.DataFrame | Path, output: Path | None = None, **options: Any
) -> EvaluationResult:
    """Evaluate with the labels of a table, written as CSV beside the evaluation."""
    if isinstance(table, Path):
        path = table
    else:
        folder = output.parent if output else run.parent
        path = folder / f"labels-{len(list(folder.glob('labels-*')))}.csv"
        table.to_csv(path, index=False)
    return evaluate(EvaluateSettings(run, (path,), output=output, **options))


def small(tmp_path: Path, model: Path, table: pd.DataFrame, **options: Any) -> Path:
    table.to_csv(tmp_path / "in.csv", index=False)
    run_score(tmp_path / "in.csv", model, tmp_path / "run", **options)
    return tmp_path / "run"


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_bytes())


# --------------------------------------------------------------------------------------------------------- instalments


def test_labels_in_three_instalments_give_the_same_bytes_as_labels_from_the_start(
    world: World, tmp_path: Path
) -> None:
    labels = world.table[["id", "label"]].sample(frac=1, random_state=1)
    late(world.plain, labels, tmp_path / "once")
    for first in range(3):
        result = late(world.plain, labels.iloc[first::3], tmp_path / "thrice")
    assert result.labelled == int(labels.label.notna().sum())
    for name in (METRICS, MISMATCHES, MISMATCHES_CSV, KEPT):
        assert (tmp_path / "thrice" / name).read_bytes() == (tmp_path / "once" / name).read_bytes(), name
    assert (tmp_path / "thrice" / METRICS).read_bytes() == (world.labelled / METRICS).read_bytes()
    start, now = (pd.read_parquet(folder / MISMATCHES) for folder in (world.labelled, tmp_path / "thrice"))
    pd.testing.assert_frame_equal(start.drop(columns="label"), now)
    assert changes_in(tmp_path / "thrice", hash_all=True) == []
    assert changes_in(world.plain, hash_all=True) == []  # nothing was put into the run


def test_labels_that_came_with_the_run_count_and_a_later_one_that_differs_is_told(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    table = made(40)
    early = table.assign(label=table.label.where(table.id < 20))
    run = small(tmp_path, tiny_bundle, early)
    whole = small_of(
        tmp_path / "whole", tiny_bundle, table.assign(label=table.label.mask(table.id == 1, "pos"))
    )
    changed = table.assign(label=table.label.mask(table.id == 1, "pos"))
    result = late(run, changed[["id", "label"]])
    (joined,) = result.joined.values()
    assert table.label[1] == "neg"
    assert (joined.corrected, joined.new) == (1, int(changed.label[20:].notna().sum()))
    assert joined.equal == int(changed.label[:20].notna().sum()) - 1
    assert read(result.output, METRICS) == {**read(whole, METRICS)}


def small_of(folder: Path, model: Path, table: pd.DataFrame, **options: Any) -> Path:
    folder.mkdir()
    return small(folder, model, table, **options)


def test_a_file_that_was_taken_before_is_not_taken_again_over_a_later_correction(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    run = small(tmp_path, tiny_bundle, made(9).drop(columns="label"))
    first = late(run, pd.DataFrame({"id": [1, 2], "label": ["neg", "pos"]}))
    late(run, pd.DataFrame({"id": [1], "label": ["pos"]}))
    again = late(run, tmp_path / "labels-0.csv")
    assert again.status == "done"
    kept = pd.read_feather(first.output / KEPT)
    assert dict(zip(kept.row, kept.label, strict=True)) == {1: "POSITIVE", 2: "POSITIVE"}


@pytest.mark.parametrize(
    ("conflicts", "label"), [("first", "NEGATIVE"), ("last", "POSITIVE"), ("refuse", None)]
)
def test_two_labels_for_one_row_in_one_call_are_refused_unless_it_is_said_which_counts(
    tmp_path: Path, tiny_bundle: Path, conflicts: str, label: str | None
) -> None:
    run = small(tmp_path, tiny_bundle, made(9).drop(columns="label"))
    labels = pd.DataFrame({"id": [4, 5, 4, 5], "label": ["neg", "pos", "pos", "pos"]})
    if label is None:
        with pytest.raises(DataError, match=r"row 4 of in\.csv has two different labels.*--conflicts"):
            late(run, labels)
        assert not evaluation_of(run).exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "labels-0.csv", "run"]
        return
    result = late(run, labels, conflicts=conflicts)
    (joined,) = result.joined.values()
    assert (joined.new, joined.repeated, joined.conflicting) == (2, 1, 1)
    kept = pd.read_feather(result.output / KEPT)
    assert kept.label[kept.row == 4].tolist() == [label]


# --------------------------------------------------------------------------------------------------------------- by id


def test_ids_match_as_values_and_what_matches_nothing_is_counted(tmp_path: Path, tiny_bundle: Path) -> None:
    ids = ["007", "7a", "8", "9.0", "10", "10", "0012", "12"]
    table = made(len(ids)).drop(columns="label").assign(id=ids, text="good")
    run = small(tmp_path, tiny_bundle, table)
    labels = pd.DataFrame({"id": ["7", "8.0", "9", "10", "12", "0012", "99", "7A"], "label": "pos"})
    (joined,) = late(run, labels).joined.values()
    assert (joined.new, joined.several_rows, joined.unknown_row) == (5, 1, 2)
    assert pd.read_feather(evaluation_of(run) / KEPT).row.tolist() == [0, 2, 3, 6, 7]
    with pytest.raises(DataError, match="id 012 could be that of several rows"):
        late(run, pd.DataFrame({"id": ["012"], "label": ["pos"]}))


def test_labels_none_of_which_is_of_the_run_are_refused(world: World, tmp_path: Path) -> None:
    labels = pd.DataFrame({"id": ["x", "y"], "label": "pos"})
    with pytest.raises(DataError, match=r"not one of 2 rows is of a row of the run.*the first: id x"):
        late(world.plain, labels, tmp_path / "out")


# -------------------------------------------------------------------------------------------------------------- by row


def test_without_ids_labels_are_joined_by_row_and_it_is_asked_whence_rows_count(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    table = made(30)
    run = small(tmp_path, tiny_bundle, table[["text"]])
    labels = pd.DataFrame({"row": table.id + 1, "label": table.label})
    with pytest.raises(DataError, match="--first-row 0 or --first-row 1"):
        late(run, labels)
    with pytest.raises(DataError, match=r"row 30 of in\.csv, whose 30 rows count from 0"):
        late(run, labels, first_row=0)
    whole = small_of(tmp_path / "whole", tiny_bundle, table[["text", "label"]])
    result = late(run, labels, first_row=1)
    assert read(result.output, METRICS) == read(whole, METRICS)
    named = labels.assign(file="in.csv", row=table.id)
    named.to_json(tmp_path / "by_file.jsonl", orient="records", lines=True)  # rows of programs count from 0
    again = evaluate(EvaluateSettings(run, (tmp_path / "by_file.jsonl",), output=tmp_path / "other"))
    assert again.metrics == result.metrics


def test_rows_that_could_not_be_read_are_counted_as_they_were(tmp_path: Path, tiny_bundle: Path) -> None:
    lines = ["text,label", *(f"good film {k},{'pos' if k % 2 else 'neg'}" for k in range(8))]
    lines.insert(3, 'bad,"neg\nx')
    (tmp_path / "x.csv").write_text("\n".join([*lines[:3], "a,b,c,d,e", *lines[4:]]) + "\n")
    run_score(tmp_path / "x.csv", tiny_bundle, tmp_path / "run", max_rejects=batchscore.config.Allowance(9))
    facts = read(tmp_path / "run", "run.json")
    assert facts["files"][0]["rejects"] == 1
    labels = pd.DataFrame({"row": [0, 2, 3], "label": "pos"})
    result = late(tmp_path / "run", labels, first_row=0)
    (joined,) = result.joined.values()
    assert (joined.corrected + joined.equal, joined.unknown_row) == (2, 1)  # row 2 could not be read
    counts = read(tmp_path / "run", METRICS)["counts"]
    assert result.metrics["counts"]["rejects"] == counts["rejects"] == 1
    assert result.metrics["counts"]["read"] == counts["read"]


# ------------------------------------------------------------------------------------------------- predictions of any kind


@pytest.mark.parametrize(
    "options",
    [
        {"output_format": "jsonl"},
        {"partition_by": "shop"},
        {"drop_columns": ("text",)},
        {"keep_columns": ("id",), "renames": {"id": "key", "p_predicted_label": "answer"}, "prefix": "p_"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_predictions_may_be_divided_reduced_and_renamed(
    tmp_path: Path, tiny_bundle: Path, options: dict[str, Any]
) -> None:
    table = made(60)
    run = small(tmp_path, tiny_bundle, table.drop(columns="label"), **options)
    (tmp_path / "in.csv").unlink()
    whole = small_of(tmp_path / "whole", tiny_bundle, table)
    result = late(run, table[["id", "label"]])
    assert result.metrics == read(whole, METRICS)
    start, now = (pd.read_parquet(folder / MISMATCHES) for folder in (whole, result.output))
    own = ["id", "given_label", "predicted_label", "probability", "prob_given", "label_quality"]
    has_text = "drop_columns" not in options and "keep_columns" not in options
    assert now.text.notna().any() == has_text
    start, now = (
        found[own].astype({"id": str}).sort_values("id", ignore_index=True) for found in (start, now)
    )
    pd.testing.assert_frame_equal(start, now)


def test_predictions_without_probabilities_are_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    run = small(tmp_path, tiny_bundle, made(9).drop(columns="label"), probabilities="none")
    with pytest.raises(DataError, match="--probabilities all"):
        late(run, pd.DataFrame({"id": [1], "label": ["pos"]}))


def test_rows_that_abstained_stay_so(tmp_path: Path, tiny_bundle: Path) -> None:
    table, options = made(60), {"thresholds": {"POSITIVE": 0.9}, "below": "abstain"}
    run = small(tmp_path, tiny_bundle, table.drop(columns="label"), **options)
    whole = small_of(tmp_path / "whole", tiny_bundle, table, **options)
    result = late(run, table[["id", "label"]])
    assert result.metrics["counts"]["abstained"] > 0
    assert result.metrics == read(whole, METRICS)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (several_labels, [";".join(LABELS[:k]) if k else "[]" for k in (0, 1, 2, 3, 1, 0)]),
        (one_number, [0.1, -2.5, 3.0, 4.25, None, 1e-3]),
        (one_number, [0, 1, 2, 3, None, 5]),
    ],
    ids=["several", "number", "whole"],
)
def test_other_tasks_have_the_same_figures_as_from_the_start(
    tmp_path: Path, make: Callable[[Path], Path], values: list[Any]
) -> None:
    model, name = make(tmp_path / "model"), "labels" if make is several_labels else "score"
    table = made(60).drop(columns="label")
    table[name] = pd.Series((values * 10)[:60], dtype=object)
    run = small(tmp_path, model, table.drop(columns=name))
    whole = small_of(tmp_path / "whole", model, table)
    for first in range(2):
        result = late(run, table[["id", name]].iloc[first::2])
    assert result.metrics == read(whole, METRICS)
    start, now = (pd.read_parquet(folder / MISMATCHES) for folder in (whole, result.output))
    assert start.drop(columns=name).to_json() == now.to_json()


# --------------------------------------------------------------------------------------------- gates, baselines, refusals


def test_gates_and_a_baseline_apply(world: World, tmp_path: Path) -> None:
    labels = world.table[["id", "label"]]
    options = {"fail_below": ("accuracy=0.99",), "baseline": world.labelled}
    result = late(world.plain, labels, tmp_path / "out", **options)
    with pytest.raises(GateFailedError, match="accuracy is"):
        result.outcome()
    assert result.metrics["comparison"]["rows"] > 2000
    assert result.metrics["comparison"]["matched_by"] == "id"
    assert late(world.plain, tmp_path / "labels-0.csv", tmp_path / "out", **options).status == "done"
    assert late(world.plain, tmp_path / "labels-0.csv", tmp_path / "out").status == "evaluated"


def test_the_latest_run_of_an_evaluation_is_the_one_before_its_run(tmp_path: Path, tiny_bundle: Path) -> None:
    table = made(20)
    table.to_csv(tmp_path / "in.csv", index=False)
    for day in (20, 21, 22):
        run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "runs" / f"2026-11-{day}")
    run = tmp_path / "runs" / "2026-11-21"
    result = late(run, table[["id", "label"]], baseline="latest")
    assert result.facts["baseline"]["path"].endswith("2026-11-20")


REFUSED: list[tuple[pd.DataFrame, dict[str, Any], type[BatchscoreError], str]] = [
    (pd.DataFrame({"id": [1], "note": ["pos"]}), {}, DataError, "no label column.*--label-column"),
    (pd.DataFrame({"x": [1], "label": ["pos"]}), {}, DataError, "--id-column, or --row-column"),
    (pd.DataFrame({"id": [1, 2], "label": [1, 5]}), {}, DataError, "--label-map"),
    (pd.DataFrame({"id": [1], "label": ["pos"]}), {"tolerance": 1.0}, UsageError, "--tolerance"),
    (pd.DataFrame({"id": [1], "label": ["pos"]}), {"run_id_column": "no"}, DataError, "--run-id-column"),
    (pd.DataFrame({"id": [1], "label": ["pos"]}), {"slice_columns": ("no",)}, DataError, "no column no"),
    (pd.DataFrame({"id": [1], "label": ["pos"]}), {"fail_above": ("drift=1",)}, UsageError, "--baseline"),
    (
        pd.DataFrame({"id": [1], "a": 1, "label": 1}),
        {"read": ReadSettings(label_column="b")},
        DataError,
        "no column b",
    ),
]


@pytest.mark.parametrize(("labels", "options", "error", "said"), REFUSED, ids=[each[3] for each in REFUSED])
def test_what_cannot_be_told_is_refused_and_leaves_nothing(
    world: World,
    tmp_path: Path,
    labels: pd.DataFrame,
    options: dict[str, Any],
    error: type[BatchscoreError],
    said: str,
) -> None:
    with pytest.raises(error, match=said) as found:
        late(world.plain, labels, tmp_path / "out", **options)
    assert "--no-labels" not in str(found.value)
    assert [path.name for path in tmp_path.iterdir()] == ["labels-0.csv"]


def test_places_that_cannot_be_an_evaluation_s_are_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    labels = pd.DataFrame({"id": [1], "label": ["pos"]})
    run = small(tmp_path, tiny_bundle, made(9).drop(columns="label"))
    with pytest.raises(NoInputError, match="no finished run"):
        late(tmp_path, labels)
    with pytest.raises(UsageError, match="in the run itself"):
        evaluate(EvaluateSettings(run, (tmp_path / "in.csv",), output=run / "more"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.txt").write_text("a")
    with pytest.raises(OutputError, match="no evaluation"):
        late(run, labels, tmp_path / "theirs", force=True)
    result = late(run, labels)
    with pytest.raises(UsageError, match="is an evaluation"):
        late(result.output, labels)
    (result.output / METRICS).write_text("{}")
    with pytest.raises(OutputError, match="not as it was written"):
        late(run, pd.DataFrame({"id": [2], "label": ["pos"]}))
    assert late(run, labels, force=True).labelled == 1
    with (run / "predictions" / "in.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(OutputError, match="not as it was written"):
        late(run, labels)


# ---------------------------------------------------------------------------------------------------------- killed


@pytest.mark.parametrize("can_exchange", [True, False])
def test_killed_while_it_is_put_in_place_there_is_the_old_evaluation_or_the_new_one(
    tmp_path: Path, tiny_bundle: Path, *, can_exchange: bool
) -> None:
    """Each rename of two folders is followed, in a child of its own, by a kill."""
    run = small(tmp_path, tiny_bundle, made(9).drop(columns="label"))
    first = late(run, pd.DataFrame({"id": [1], "label": ["neg"]}))
    old = (first.output / METRICS).read_bytes()
    more = tmp_path / "more.csv"
    pd.DataFrame({"id": [2], "label": ["pos"]}).to_csv(more, index=False)
    whole = late(
        run, more, tmp_path / "other"
    )  # what one label alone gives, to see that the old one counts too
    for kill_at in range(3):
        child = os.fork()
        if child == 0:
            _evaluate_and_die(run, more, kill_at, can_exchange=can_exchange)
        os.waitpid(child, 0)
        if not can_exchange and not first.output.exists():  # the next call puts the old one back first
            late(run, more)
        assert changes_in(first.output, hash_all=True) == []
        if (first.output / METRICS).read_bytes() != old:
            break
    done = late(run, more)
    assert done.labelled == 2
    assert done.metrics != whole.metrics
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _evaluate_and_die(run: Path, labels: Path, kill_at: int, *, can_exchange: bool) -> None:
    left = [kill_at]

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: OwnPath, other: OwnPath) -> Any:
            if path.parts[-1:] == ("final",) or other.parts[-1:] == ("before",):
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
            return function(path, other)

        return call

    OwnPath.replace = dying(OwnPath.replace)  # type: ignore[method-assign]
    OwnPath.exchange = dying(OwnPath.exchange) if can_exchange else lambda *_: False  # type: ignore[method-assign]
    evaluate(EvaluateSettings(run, (labels,)))
    os._exit(9)


# --------------------------------------------------------------------------------------------------- trend, Python, page


def test_the_trend_takes_a_night_s_truth_from_its_evaluation(tmp_path: Path, tiny_bundle: Path) -> None:
    table = made(30)
    table.drop(columns="label").to_csv(tmp_path / "in.csv", index=False)
    for day in (20, 21):
        run_score(tmp_path / "in.csv", tiny_bundle, tmp_path / "runs" / f"2026-11-{day}")
    until = datetime.date(2026, 11, 21)
    before = read_nights(tmp_path / "runs", until)
    assert [night.labels for night in before.shown] == [None, None]
    result = late(tmp_path / "runs" / "2026-11-20", table[["id", "label"]].iloc[:20])
    first, second = read_nights(tmp_path / "runs", until).shown  # the evaluation is no night
    assert first.values["accuracy"].value == result.metrics["quality"]["accuracy"]["value"]
    assert (first.labels and first.labels.rows, second.labels) == (result.labelled, None)
    from batchscore.reports.night_reasons import reason_of

    assert f"{result.labelled} of 30 rows have labels by now" in reason_of(first)
    (result.output / "metrics.json").write_text("{}")
    assert read_nights(tmp_path / "runs", until).shown[0].labels is None  # a changed one does not count


def test_a_value_that_is_no_label_is_not_told_of_a_row_that_keeps_its_label(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    run = small(tmp_path, tiny_bundle, made(4).drop(columns="label"))
    late(run, pd.DataFrame({"id": [1, 2], "label": ["pos", "neg"]}))
    told = late(run, pd.DataFrame({"id": [0, 1, 2, 3], "label": ["odd", "odder", "pos", "neg"]}))
    assert list(told.metrics["unknown_labels"].values()) == [{"odd": 1}]
    assert told.metrics["counts"]["labelled"] == 3


def test_through_a_link_it_is_the_evaluation_of_the_run_itself(tmp_path: Path, tiny_bundle: Path) -> None:
    table = made(40)
    run = small(tmp_path, tiny_bundle, table.drop(columns="label"))
    (tmp_path / "latest").symlink_to(run.name)
    late(tmp_path / "latest", table[["id", "label"]][:20])
    both = late(run, table[["id", "label"]][20:])
    assert (both.output, both.labelled) == (evaluation_of(run), int(table.label.notna().sum()))
    assert both.facts["evaluates"]["name"] == run.name


def test_from_python(world: World, tmp_path: Path) -> None:
    run = batchscore.open_run(world.plain)
    labels = world.table[["id", "label"]].iloc[:50]
    evaluation = run.evaluate(labels, tmp_path / "out")
    assert evaluation.labelled == int(labels.label.notna().sum())
    assert evaluation.mismatches is not None
    assert evaluation.mismatches.num_rows == evaluation.metrics["mismatches"]
    assert "labels" in repr(evaluation)
    with pytest.raises(GateFailedError) as found:
        batchscore.evaluate(run, labels, tmp_path / "out", fail_below={"accuracy": 1})
    assert isinstance(found.value.run, batchscore.Evaluation)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
