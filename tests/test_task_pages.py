"""The page of a run, drift, gates and the trend for models with several labels, and for those that give a number."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import task_samples
from report_samples import facts, write_run
from task_samples import BASES, held_against, label_sets, mismatches, numbers, sample
from test_reports import Page

from batchscore.errors import UsageError
from batchscore.evaluation import Distributions, flat_metrics, measure_drift, parse_gate
from batchscore.evaluation.gates import Direction
from batchscore.evaluation.metrics import (
    FOLLOWED,
    HEADLINES,
    METRICS,
    Better,
    Metric,
    Section,
    Unit,
    gated,
    in_section,
    of_labels,
)
from batchscore.records import Task
from batchscore.reports import render_run
from batchscore.reports.formats import text_of
from batchscore.runs.trend import write_trend
from batchscore.system.storage import to_json

TASKS = (Task.MULTI_LABEL, Task.REGRESSION)
ALL = [(task, metric) for task in TASKS for metric in METRICS if task in metric.tasks]
NOT_OF_A_SAMPLE = {"duplicate", "rows_per_second"}


class Run:
    def __init__(self, task: Task) -> None:
        before, now = sample(task, 4000, seed=1), sample(task, 4000, seed=1)
        self.earlier = task_samples.metrics(task, before)
        found = task_samples.metrics(task, now, rejects=2)
        gates = [
            f"{m.name}={m.limits[0] if m.better is Better.MORE and m.limits[0] > -9 else min(m.limits[1], 99)}"
            if m.name != "r2"
            else "r2=-1"
            for m in gated(task)
        ]
        self.metrics = held_against(task, found, self.earlier, (before, now), gates)
        self.facts = facts(["part-0.parquet"], BASES[task].labels) | {"seconds": 9.0}
        self.page = Page(render_run(self.facts, self.metrics, mismatches(task), self.earlier))


@pytest.fixture(scope="module")
def runs() -> dict[Task, Run]:
    return {task: Run(task) for task in TASKS}


@pytest.mark.parametrize(("task", "metric"), ALL, ids=lambda each: getattr(each, "name", str(each)))
def test_each_metric_of_a_task_is_measured_and_within_its_limits(
    task: Task, metric: Metric, runs: dict[Task, Run]
) -> None:
    found, (least, most) = metric.read(runs[task].metrics, runs[task].facts), metric.limits
    assert found is not None, f"{metric.name} has no value"
    assert least <= found.value <= most
    if found.low is not None and found.high is not None:
        assert least <= found.low <= found.value <= found.high <= most


@pytest.mark.parametrize("task", TASKS)
def test_metrics_of_other_tasks_have_no_value(task: Task, runs: dict[Task, Run]) -> None:
    for metric in METRICS:
        if task not in metric.tasks:
            assert metric.read(runs[task].metrics, runs[task].facts) is None, metric.name


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_of_quality_has_an_entry(task: Task, runs: dict[Task, Run]) -> None:
    quality = runs[task].metrics["quality"]
    shown_otherwise = {
        "per_label", "taken_for", "precision_recall", "labels_per_row", "within", "residuals", "predicted_vs_given",
        "mean_given", "mean_value", "spread_given",
    }  # fmt: skip
    for name in quality.keys() - shown_otherwise:
        without = runs[task].metrics | {
            "quality": {key: each for key, each in quality.items() if key != name}
        }
        lost = [m for m in METRICS if task in m.tasks and m.read(without, {"seconds": 1}) is None]
        assert lost, f"no metric reads {name}"


@pytest.mark.parametrize("task", TASKS)
def test_the_page_lists_each_figure_with_its_value(task: Task, runs: dict[Task, Run]) -> None:
    run = runs[task]
    for metric in in_section(Section.QUALITY, task):
        heading, found = metric.heading_on_page(run.metrics), metric.read(run.metrics, {})
        assert found is not None
        assert f"{heading}{text_of(metric.unit, found.value)}" in run.page.text


@pytest.mark.parametrize("task", TASKS)
def test_every_gate_of_a_task_passes_on_its_good_side(task: Task, runs: dict[Task, Run]) -> None:
    results = {gate["metric"]: gate for gate in runs[task].metrics["gates"]}
    assert results.keys() == {metric.name for metric in gated(task)}
    assert all(gate["passed"] for gate in results.values())
    for metric in gated(task):
        assert results[metric.name]["direction"] == Direction.of(metric).value


def test_a_gate_on_a_figure_of_another_task_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"accuracy is not measured of a model that gives a number\. Known: mae"
    ):
        parse_gate("accuracy=.9", ["score"], task=Task.REGRESSION)
    with pytest.raises(UsageError, match="mae is not measured of a model with one label a text"):
        parse_gate("mae=.9", ["NEG", "POS"])
    assert parse_gate("mae=.9").metric == "mae"  # before the model is open, that of any task
    assert parse_gate("f1_toxic=.9", ["toxic"], task=Task.MULTI_LABEL).metric == "f1_toxic"
    with pytest.raises(UsageError, match=r"no metric is named|not measured"):
        parse_gate("f1_score=.9", ["score"], task=Task.REGRESSION)


def test_limits_have_the_unit_of_their_metric() -> None:
    task = Task.REGRESSION
    assert parse_gate("mae=12.5", ["score"], task=task).limit == 12.5
    assert parse_gate("r2=-3", ["score"], task=task).limit == -3
    for text, told in (
        ("mae=5%", "without %"),
        ("mae=-1", "0 or more"),
        ("r2=2", "at most 1"),
        ("r2=nan", "finite"),
    ):
        with pytest.raises(UsageError, match=told):
            parse_gate(text, ["score"], task=task)


@pytest.mark.parametrize("task", TASKS)
def test_without_labels_gates_on_quality_say_what_they_lack(task: Task) -> None:
    found = task_samples.metrics(task, sample(task, 60).unlabelled(task))
    headline = HEADLINES[task].quality
    good = parse_gate(f"{headline.name}=0.5", found["labels"], task=task)
    (result,) = held_against(task, found, found, gates=[f"{headline.name}=0.5"])["gates"]
    assert (good.metric, result["passed"]) == (headline.name, False)
    assert "no row has both a known label and a prediction" in result["reason"]


def test_metrics_of_a_label_are_those_of_its_table(runs: dict[Task, Run]) -> None:
    metrics = runs[Task.MULTI_LABEL].metrics
    flat, table = flat_metrics(metrics), metrics["quality"]["per_label"]
    for label, name in itertools.product(table, ("precision", "recall", "f1")):
        assert flat[f"{name}_{label}"] == table[label][name]
    assert of_labels(["score"], Task.REGRESSION) == []


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["labelled", "unlabelled", "one row", "no row"])
def test_a_page_is_made_of_any_run(task: Task, kind: str) -> None:
    rows = sample(task, 300)
    rows = {
        "labelled": rows,
        "unlabelled": rows.unlabelled(task),
        "one row": rows.take(slice(0, 1)),
        "no row": rows.take(slice(0)),
    }[kind]
    found = task_samples.metrics(task, rows)
    to_json(found)
    page = Page(
        render_run(
            facts(["a.csv"], BASES[task].labels), found, mismatches(task) if kind == "labelled" else []
        )
    )
    assert "None" not in page.text
    assert "nan" not in page.text
    assert ("It ran" in page.text) is True
    assert ("set a gate" in page.text or "sets a gate" in page.text) is (
        kind != "no row" and not (task is Task.REGRESSION and kind == "unlabelled")
    )


def test_the_page_names_what_is_missing_and_what_is_too_many(runs: dict[Task, Run]) -> None:
    assert "missing insult; too many obscene · given toxic, insult, predicted toxic, obscene" in " ".join(
        runs[Task.MULTI_LABEL].page.text.split()
    )
    assert "given 0, value 5.5: 5.5 too high" in " ".join(runs[Task.REGRESSION].page.text.split())


def test_texts_and_names_from_outside_are_escaped() -> None:
    for task in TASKS:
        text = render_run(
            facts(["a.csv"], BASES[task].labels),
            task_samples.metrics(task, sample(task, 200)),
            mismatches(task),
        )
        assert "<b>absolute</b>" not in text
        assert "&lt;b&gt;absolute" in text
        assert "<b>absolute" not in render_run(
            facts(["a"]), task_samples.metrics(task, sample(task, 200)), mismatches(task), with_text=False
        )


def test_a_worse_model_is_told_on_the_same_rows() -> None:
    task = Task.REGRESSION
    before, now = numbers(3000, seed=1), numbers(3000, seed=1, noise=0.8)
    earlier, found = (task_samples.metrics(task, each) for each in (before, now))
    page = Page(render_run(facts(), held_against(task, found, earlier, (before, now)), [], earlier))
    assert "mean absolute error on the same rows is larger than in the earlier run" in page.text
    assert "further off" in page.text


def test_answers_worse_than_a_constant_are_told() -> None:
    task = Task.REGRESSION
    rows = numbers(500, shift=9.0)
    assert "worse than always answering the mean" in render_run(facts(), task_samples.metrics(task, rows), [])
    task = Task.MULTI_LABEL
    sets = label_sets(500)
    wrong = sets._replace(
        given=np.where(sets.given >= 0, np.eye(6, dtype=np.int8)[np.full(500, 3)], sets.given)
    )
    assert "worse than always giving threat alone" in render_run(
        facts(), task_samples.metrics(task, wrong), []
    )


def test_drift_is_seen_in_labels_and_values_and_not_between_halves() -> None:
    def drift(task: Task, before: Any, after: Any) -> dict[str, Any]:
        runs = [Distributions.from_metrics(task_samples.metrics(task, each)) for each in (before, after)]
        return measure_drift(*runs).to_json()

    sets = label_sets(8000)
    assert drift(Task.MULTI_LABEL, sets.take(slice(0, 4000)), sets.take(slice(4000, 8000)))["value"] == 0.0
    p = sets.predictions.probabilities
    p[:, 2] = p[:, 2] ** np.float32(0.4)
    shifted = drift(Task.MULTI_LABEL, label_sets(8000), sets)
    assert (shifted["verdict"], shifted["distributions"][2]["label"]) == ("clear shift", "obscene")
    values = numbers(8000)
    assert drift(Task.REGRESSION, values.take(slice(0, 4000)), values.take(slice(4000, 8000)))["value"] == 0.0
    for offset in (0.0, 1e4):  # at 1e4 a fixed relative grid would see nothing
        pair = [values, numbers(8000, shift=0.9)]
        for each in pair:
            each.predictions.predicted[:] += np.float32(offset)
        moved = drift(Task.REGRESSION, *pair)
        assert (moved["verdict"], moved["distributions"][0]["distribution"]) == ("clear shift", "value")


def test_runs_of_different_tasks_are_no_drift_but_an_error() -> None:
    runs = [Distributions.from_metrics(task_samples.metrics(task, sample(task, 50))) for task in TASKS]
    with pytest.raises(ValueError, match="different tasks"):
        measure_drift(*runs)


@pytest.mark.parametrize("tasks", [TASKS[:1], TASKS[1:], TASKS], ids=["several labels", "numbers", "mixed"])
def test_the_trend_follows_the_figures_of_each_task(tasks: tuple[Task, ...], tmp_path: Path) -> None:
    day = datetime.datetime(2026, 11, 1, 3, tzinfo=datetime.UTC)
    for k in range(4):
        task = tasks[k % len(tasks)]
        folder = tmp_path / f"2026-11-0{k + 1}"
        write_run(
            folder, task_samples.metrics(task, sample(task, 300, seed=k)), day + datetime.timedelta(days=k)
        )
    trend = write_trend(tmp_path, until=datetime.date(2026, 11, 4))
    page = Page(trend.page.read_text(encoding="utf-8"))
    for task in tasks:
        words = HEADLINES[task].quality.words
        assert words[0].upper() + words[1:] in page.text
    assert ("better keep them in folders of their own" in page.text) is (len(tasks) > 1)
    assert (
        f"{Direction.of(HEADLINES[tasks[-1]].quality).option} {HEADLINES[tasks[-1]].quality.name}=X"
        in page.text
    )


def test_units_and_gauges_are_told_for_every_metric() -> None:
    assert {metric.unit for metric in FOLLOWED if metric.tasks == {Task.REGRESSION}} == set(Unit)
    for task in Task:
        assert [metric for metric in METRICS if metric.gauge and task in metric.tasks]
        assert HEADLINES[task].quality.is_gated
        assert HEADLINES[task].quality.is_column
