"""Metrics of a run or of a call of ``inbox``, as a file for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from batchscore.errors import OutputError, missing_extra, printable
from batchscore.evaluation.metrics import METRICS
from batchscore.system.storage import write_bytes

Values = dict[tuple[tuple[str, str], ...], float]


class Sample(NamedTuple):
    """One gauge with its values by their labels."""

    name: str
    help: str
    values: Values


def refuse_unwritable(path: Path) -> None:
    """Check before the run that the metrics file can be written after it.

    Raises:
        OutputError: its folder does not exist or cannot be written to, or the path is a folder.
        UsageError: the extra ``metrics`` is not installed.
    """
    if importlib.util.find_spec("prometheus_client") is None:
        raise missing_extra("--metrics-file", "metrics")
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "is a folder" if path.is_dir() else f"cannot be written into {printable(folder)}"
        raise OutputError(f"--metrics-file {printable(path)} {what}. Name a file in a folder that is there.")


def write_metrics(path: Path, exit_code: int, seconds: float, metrics: Mapping[str, Any]) -> None:
    """Write ``path`` atomically; ``metrics`` is the content of ``metrics.json``, or empty after an error.

    For a call of ``inbox`` it holds ``files`` (how many by status) and ``counts`` (their rows).

    Raises:
        StorageError: the file cannot be written.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    for sample in _samples(exit_code, seconds, metrics):
        names = [name for name, _ in next(iter(sample.values))]
        gauge = Gauge(f"batchscore_{sample.name}", sample.help, names, registry=registry)
        for labels, value in sample.values.items():
            (gauge.labels(*(text for _, text in labels)) if labels else gauge).set(value)
    write_bytes(path, generate_latest(registry))


def _samples(exit_code: int, seconds: float, metrics: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample("last_exit_code", "Exit code of the last call.", {(): exit_code})
    yield Sample("last_end_timestamp_seconds", "When the last call ended.", {(): time.time()})
    yield Sample("last_duration_seconds", "How long the last call took.", {(): seconds})
    if files := metrics.get("files"):
        became: Values = {(("status", name),): float(count) for name, count in files.items()}
        yield Sample("inbox_files", "Files of the last call by what became of them.", became)
    if counts := metrics.get("counts"):
        rows: Values = {(("state", name),): float(count) for name, count in counts.items()}
        yield Sample("rows", "Rows of the last run by what they are.", rows)
    for metric in METRICS:
        if metric.gauge and (found := metric.read(metrics, {})):
            yield Sample(metric.gauge, metric.gauge_help, {(): found.value})
    if gates := metrics.get("gates"):
        passed: Values = {(("metric", gate["metric"]),): float(gate["passed"]) for gate in gates}
        yield Sample("gate_passed", "1 where a quality gate of the last run passed.", passed)
