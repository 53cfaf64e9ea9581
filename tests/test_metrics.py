"""Every metric of the registry is in metrics.json, and shows wherever its entry says: page, gates, trend, Prometheus."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import run_score, seal_bundle
from test_operations import samples
from test_reports import Page

from batchscore import cli
from batchscore.errors import UsageError
from batchscore.evaluation import is_of_quality, needs_baseline, parse_gate
from batchscore.evaluation.gates import Direction
from batchscore.evaluation.metrics import (
    FOLLOWED,
    METRICS,
    Better,
    Metric,
    Section,
    Value,
    gated,
    in_section,
    named,
    of_labels,
)
from batchscore.evaluation.reliability import EDGES
from batchscore.model.bundle import seal
from batchscore.model.bundle_facts import FACTS
from batchscore.model.held_out import HeldOutAnswers
from batchscore.records import Task
from batchscore.reports.formats import number, percent
from batchscore.runs.trend import write_trend

TASK = Task.SINGLE_LABEL
"""The other tasks: test_task_pages.py."""
GATED = gated(TASK)
OF_TASK = [metric for metric in METRICS if TASK in metric.tasks]
BY_NAME = [pytest.param(metric, id=metric.name) for metric in OF_TASK]
TRAINED = {
    "calibration_error": 0.02,
    "reliability": {
        "edges": list(EDGES),
        "rows": [1000] * len(EDGES),
        "correct": [999] * len(EDGES),
        "mean_probability": [edge + 0.001 for edge in EDGES],
    },
}
"""What the bundle knows of itself: hardly ever wrong, so that more mismatches mean wrong labels."""
TABLES_OF_QUALITY = {"per_label", "confusion_matrix", "precision_recall"}


class Run(NamedTuple):
    """A run that has a value of every metric, what Prometheus got of it, and the trend over its folder."""

    metrics: dict[str, Any]
    facts: dict[str, Any]
    page: Page
    gauges: dict[tuple[str, ...], float]
    night: dict[str, Any]
    trend: Page

    def value(self, metric: Metric) -> Value:
        found = metric.read(self.metrics, self.facts)
        assert found is not None, f"metrics.json has no {metric.name}"
        return found


def rows(reviews: pd.DataFrame, predicted: list[str]) -> pd.DataFrame:
    """Most rows with the label that the model predicts, some with the other one; one without, one with an unknown one."""
    other = {"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"}
    labels: list[str | None] = [other[label] if k % 5 == 0 else label for k, label in enumerate(predicted)]
    labels[1:3] = None, "NEUTRAL"
    return pd.DataFrame({"text": reviews.text, "label": labels})


HELD_OUT = {
    "held_out_answers": HeldOutAnswers(
        (np.arange(400) % 2).astype(np.int32),
        np.full(400, 0.99, np.float32),
        np.ones(400, bool),
        "fp32",
        "head",
    ).to_json()
}


@pytest.fixture(scope="module")
def run(
    make_model: Callable[..., Path], reviews: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("metrics")
    bundle = seal_bundle(make_model())
    facts = json.loads((bundle / FACTS).read_bytes())
    kept = ("labels", "max_length", "temperature", "long_text", "canaries", "training")
    seal(bundle, {key: facts[key] for key in kept} | {"metrics": TRAINED, **HELD_OUT})

    plain = reviews[reviews.text.fillna("").str.strip().astype(bool)].head(60)
    plain[["text"]].to_csv(folder / "first.csv", index=False)
    run_score(folder / "first.csv", bundle, folder / "first")
    predicted = pd.read_csv(folder / "first" / "predictions" / "first.csv").predicted_label.tolist()
    rows(plain.reset_index(drop=True), predicted).to_csv(folder / "second.csv", index=False)

    arguments = ["score", folder / "second.csv", "--model", bundle, "--output", folder / "runs" / "second"]
    arguments += [
        "--accept",
        "precision=0.5",
        "--baseline",
        folder / "first",
        "--metrics-file",
        folder / "run.prom",
        "--quiet",
    ]
    for metric in GATED:
        limit = metric.limits[0] if metric.better is Better.MORE else min(metric.limits[1], 100)
        arguments += [Direction.of(metric).option, f"{metric.name}={limit:g}"]
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output

    trend = write_trend(folder / "runs")
    output = folder / "runs" / "second"
    return Run(
        metrics=json.loads((output / "metrics.json").read_bytes()),
        facts=json.loads((output / "run.json").read_bytes()),
        page=Page((output / "report.html").read_text(encoding="utf-8")),
        gauges=samples(folder / "run.prom"),
        night=json.loads(trend.data.read_bytes())["nights"][-1],
        trend=Page(trend.page.read_text(encoding="utf-8")),
    )


@pytest.mark.parametrize("metric", BY_NAME)
def test_metrics_json_has_it(metric: Metric, run: Run) -> None:
    found, (least, most) = run.value(metric), metric.limits
    assert least <= found.value <= most
    if found.low is not None or found.high is not None:
        assert found.low is not None
        assert found.high is not None
        assert least <= found.low <= found.value <= found.high <= most


def test_every_figure_of_quality_has_an_entry(run: Run) -> None:
    quality = run.metrics["quality"]
    for name in (
        quality.keys() - TABLES_OF_QUALITY - {"brier_sum"}
    ):  # the sum is the Brier score on another scale
        without = run.metrics | {"quality": {key: each for key, each in quality.items() if key != name}}
        read = [metric.name for metric in METRICS if metric.read(without, run.facts) is None]
        assert read, f"no metric reads {name}"


@pytest.mark.parametrize("metric", BY_NAME)
def test_a_metric_shows_somewhere(metric: Metric) -> None:
    assert metric.section or metric.is_followed
    assert named(metric.name) is metric
    assert metric.words


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in in_section(Section.QUALITY, TASK)])
def test_the_page_lists_it_with_its_value_and_interval(metric: Metric, run: Run) -> None:
    found, write = run.value(metric), percent if metric.is_share else number
    heading = metric.heading_on_page(run.metrics)
    if metric.name == "ece_before":  # this model has no temperature
        assert (heading, metric.heading_on_page({"calibration": {"temperature": 1.3}}) != "") == ("", True)
        return
    if metric.name == "answered":  # every row was
        assert heading == ""
        return
    before, _, after = run.page.text.partition(f"{heading}{write(found.value)}")
    assert after, f"{heading} {write(found.value)} is not on the page"
    assert found.low is None or f"{write(found.low)} to {write(found.high)}" in after
    assert "How good is it?" in before


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in in_section(Section.ROWS)])
def test_the_page_counts_its_rows(metric: Metric, run: Run) -> None:
    count = run.metrics["counts"][metric.name]
    assert f"{metric.heading_on_page(run.metrics)}{count:,}before " in run.page.text
    assert run.value(metric).value == count / run.metrics["counts"]["read"]


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in GATED])
def test_a_gate_takes_it_on_its_good_side_alone(metric: Metric, run: Run) -> None:
    (gate,) = [gate for gate in run.metrics["gates"] if gate["metric"] == metric.name]
    assert (gate["value"], gate["passed"]) == (run.value(metric).value, True)
    assert f"{metric.name.replace('_', ' ')}passed" in run.page.text
    under, over = Direction.AT_LEAST, Direction.AT_MOST
    good, bad = (under, over) if metric.better is Better.MORE else (over, under)
    assert gate["direction"] == good.value
    with pytest.raises(UsageError, match=f"write {good.option}"):
        parse_gate(f"{metric.name}=0.5", direction=bad)


@pytest.mark.parametrize("metric", [m for m in OF_TASK if not m.is_gated], ids=lambda metric: metric.name)
def test_a_metric_that_is_not_gated_is_no_gate(metric: Metric) -> None:
    for labels in (None, ["NEGATIVE", "POSITIVE"]):
        with pytest.raises(UsageError, match="no metric is named"):
            parse_gate(f"{metric.name}=0.5", labels)


@pytest.mark.parametrize("metric", [pytest.param(m, id=m.name) for m in FOLLOWED if TASK in m.tasks])
def test_the_trend_follows_it(metric: Metric, run: Run) -> None:
    found = run.value(metric)
    assert run.night["values"][metric.name] == {"value": found.value, "low": found.low, "high": found.high}
    title = metric.words[0].upper() + metric.words[1:]
    drawn = [value for _, name, value in run.trend.attributes if name == "aria-label"]
    if metric.name != "expected_accuracy":  # drawn beside the accuracy
        assert any(title in each for each in drawn) or title in run.trend.text
    if metric.is_column:
        assert metric.words in run.trend.text


def test_prometheus_gets_those_with_a_name_for_it(run: Run) -> None:
    told = {metric.gauge: run.value(metric).value for metric in OF_TASK if metric.gauge}
    assert told.keys() >= {"accuracy", "macro_f1", "calibration_error", "matthews"}
    assert {name: run.gauges[f"batchscore_{name}",] for name in told} == told
    assert all(metric.gauge_help for metric in METRICS if metric.gauge)


def test_no_two_metrics_share_a_name() -> None:
    for names in (
        [metric.name for metric in (*METRICS, *of_labels(["NEGATIVE", "POSITIVE"]))],
        [metric.gauge for metric in METRICS if metric.gauge],
    ):
        assert len(set(names)) == len(names)


def test_metrics_of_a_label_are_read_from_the_table_of_labels(run: Run) -> None:
    table = run.metrics["quality"]["per_label"]
    for metric, (label, name) in zip(
        of_labels(list(table)), itertools.product(table, ("precision", "recall", "f1")), strict=True
    ):
        assert (metric.name, run.value(metric).value) == (f"{name}_{label}", table[label][name])
        assert is_of_quality(metric.name)


def test_which_gates_judge_predictions_and_which_need_an_earlier_run() -> None:
    rows_that_came = {
        "null_text", "empty_text", "abstained", "truncated", "rejects", "failed", "unlabelled", "unknown_label"
    }  # fmt: skip
    no_quality = {"answered", "accepted", "accepted_precision_bound"}
    gated = {metric.name for metric in GATED}
    assert {name for name in gated if not is_of_quality(name)} == {*rows_that_came, *no_quality, "drift"}
    assert {name for name in gated if needs_baseline(name)} == {"drift"}
    assert is_of_quality("a_metric_of_another_version")


def test_matthews_may_be_negative_but_not_over_one() -> None:
    assert parse_gate("matthews=0.5").limit == 0.5
    assert parse_gate("matthews=-0.25").limit == -0.25
    for limit, told in (("50", "did you mean 50%"), ("-2", "-1 or more"), ("1.5", "at most 1")):
        with pytest.raises(UsageError, match=told):
            parse_gate(f"matthews={limit}")
