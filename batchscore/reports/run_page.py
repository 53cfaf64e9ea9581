"""One run as one self-contained page: no script, no request, everything escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import task_of
from batchscore.records import Task
from batchscore.reports import label_page, label_set_page, run_tables, value_page, written_files
from batchscore.reports.answers import Metrics
from batchscore.reports.comparisons import compared
from batchscore.reports.pages import render
from batchscore.reports.row_groups import Group, groups_of
from batchscore.reports.titles import subtitle, title
from batchscore.reports.views import Told, View
from batchscore.reports.written_files import WrittenFile


def render_run(
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    worst: Sequence[Mapping[str, Any]],
    baseline: Mapping[str, Any] | None = None,
    *,
    with_text: bool = True,
    grouped: Mapping[Group, Sequence[Metrics]] | None = None,
    written: Sequence[WrittenFile] = (),
) -> str:
    """The page of one run, from ``facts`` of ``run.json`` and ``metrics`` of ``metrics.json``.

    ``worst``: the mismatches to show, from :meth:`MismatchTable.head`. ``baseline``: the metrics of the run
    that this one is compared with. ``with_text=False`` leaves out the texts of reviews. ``grouped``: mismatches of the
    groups of :func:`groups_of`, as ``worst``. ``written``: the files beside the page.
    """
    grouped = {group: listed for group, listed in (grouped or {}).items() if listed}
    links = {group: f"#{group.anchor}" for group in grouped}
    view = _VIEWS[task_of(metrics)](Told(metrics, baseline, len(worst), links))
    return render(
        view.template,
        files=written_files.links(written),
        how=view.row,
        worst=view.lines(worst, with_text),
        groups=[
            {
                "anchor": each.anchor,
                "back": each.back,
                "title": each.title,
                "note": each.note(len(grouped[each.group])),
                "lines": view.lines(grouped[each.group], with_text),
            }
            for each in groups_of(metrics)
            if each.group in grouped
        ],
        written=written_files.table(written),
        title=title(facts),
        verdict=view.verdict,
        subtitle=subtitle(facts),
        counts=run_tables.counts(metrics, baseline),
        gates=run_tables.gates(metrics),
        quality=run_tables.quality(metrics, baseline),
        has_labels=metrics["quality"] is not None,
        compared=compared(metrics, view.changed),
        drift=run_tables.drift(metrics),
        with_text=with_text,
        inputs=run_tables.files(facts, metrics),
        failures=run_tables.failures(metrics),
        facts=run_tables.run_facts(facts),
        **view.parts,
    )


_VIEWS: Mapping[Task, Callable[[Told], View]] = {
    Task.SINGLE_LABEL: label_page.view,
    Task.MULTI_LABEL: label_set_page.view,
    Task.REGRESSION: value_page.view,
}
