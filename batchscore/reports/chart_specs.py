"""The charts' definitions in Altair; ``python -m batchscore.reports.chart_specs`` compiles them to ``charts.json``.

Altair takes half a second to import, and only the numbers change from night to night. So the charts are compiled to Vega
beforehand, with empty named data sets; :mod:`batchscore.reports.charts` fills and draws them. A test compares
``charts.json`` with these definitions. Colours are the page's CSS variables, so a chart follows the page's light or dark
theme.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import altair as alt
import vl_convert

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

WIDTH, HEIGHT = 400, 190
_SHARE, _FINE_SHARE, _NUMBER = ".0%", ".3~%", ""
_NUMBER_LABEL = "datum.value >= 1000 ? format(datum.value, '~s') : format(datum.value, '.3~g')"
_SOFT, _LINE, _ACCENT = "var(--soft)", "var(--line)", "var(--accent)"
_GOOD, _LOOK, _BAD = "var(--good)", "var(--look)", "var(--bad)"


def reliability(
    across: str = "probability of the predicted label", upwards: str = "share that was right"
) -> Chart:
    """``bins`` {probability, accuracy, low, high, size 0 to 1}, ``before`` {probability, accuracy} and ``ideal`` {at}.

    ``least`` is where both axes start.
    """
    scale = alt.Scale(domainMin=alt.ExprRef("least"), domainMax=1, nice=False, zero=False)
    bins = alt.Chart(alt.NamedData("bins"))
    x = alt.X("probability:Q", scale=scale, axis=_axis(across, _SHARE))
    ideal = (
        alt.Chart(alt.NamedData("ideal"))
        .mark_line(stroke=_SOFT, strokeDash=[3, 3], strokeWidth=1)
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("at:Q", scale=alt.Scale(zero=False, nice=False)))
    )
    whiskers = bins.mark_rule(stroke=_ACCENT, strokeWidth=1.5).encode(x=x, y="low:Q", y2="high:Q")
    line = bins.mark_line(stroke=_ACCENT, strokeWidth=1.5).encode(x=x, y="accuracy:Q")
    before = (
        alt.Chart(alt.NamedData("before"))
        .mark_line(stroke=_SOFT, strokeWidth=1.5)
        .encode(x=x, y="accuracy:Q")
    )
    dots = bins.mark_point(filled=True, fill=_ACCENT, opacity=1).encode(
        x=x,
        y=alt.Y("accuracy:Q", axis=_axis(upwards, _SHARE)),
        size=alt.Size("size:Q", scale=alt.Scale(domain=[0, 1], range=[15, 140]), legend=None),
    )
    return alt.layer(ideal, before, whiskers, line, dots).add_params(alt.param(name="least", value=0.5))


def histogram(across: str = "probability of the predicted label") -> Chart:
    """``rows`` {low, high, kind, count}: stacked by kind."""
    kinds, colours = ["correct", "wrong", "unlabelled"], [_GOOD, _BAD, _ACCENT]
    chart: Chart = (
        alt.Chart(alt.NamedData("rows"))
        .mark_bar(binSpacing=1.5)
        .encode(
            x=alt.X(
                "low:Q",
                bin=alt.BinParams(binned=True),
                scale=alt.Scale(domainMin=alt.ExprRef("least"), domainMax=1, nice=False, zero=False),
                axis=_axis(across, _SHARE),
            ),
            x2="high:Q",
            y=alt.Y("count:Q", axis=_axis("rows", _NUMBER), stack="zero"),
            fill=alt.Fill("kind:N", scale=alt.Scale(domain=kinds, range=colours), legend=None),
            order=alt.Order("kind:N"),
        )
        .add_params(alt.param(name="least", value=0.5))
    )
    return chart


def coverage(upwards: str = "accuracy of those") -> Chart:
    """``thresholds`` {share, value, low, high, name}, and ``named``: those with their names written beside."""
    data = alt.Chart(alt.NamedData("thresholds"))
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("share:Q", scale=scale, axis=_axis("share of rows accepted without a look", _SHARE))
    y = alt.Y("value:Q", scale=alt.Scale(zero=False), axis=_axis(upwards, _FINE_SHARE))
    named = alt.Chart(alt.NamedData("named")).encode(x=alt.X("share:Q", scale=scale), y="value:Q")
    return alt.layer(
        data.mark_area(fill=_ACCENT, opacity=0.2).encode(x=x, y="low:Q", y2="high:Q"),
        data.mark_line(stroke=_ACCENT, strokeWidth=1.5).encode(x=x, y=y, order="share:Q"),
        named.mark_point(filled=True, fill=_ACCENT, size=35, opacity=1),
        named.mark_text(fill="var(--ink)", align="left", dx=5, dy=-9, fontSize=11).encode(text="name:N"),
    )


def precision_recall() -> Chart:
    """``points`` {recall, precision, label: "0" to "3"}: one line per label."""
    colours = alt.Scale(domain=["0", "1", "2", "3"], range=[_ACCENT, _LOOK, _GOOD, _BAD])
    chart: Chart = (
        alt.Chart(alt.NamedData("points"))
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X(
                "recall:Q",
                scale=alt.Scale(domain=[0, 1]),
                axis=_axis("recall: share of its rows found", _SHARE),
            ),
            y=alt.Y(
                "precision:Q",
                scale=alt.Scale(zero=False, domainMax=1, nice=False),
                axis=_axis("precision: share of those right", _FINE_SHARE),
            ),
            stroke=alt.Stroke("label:N", scale=colours, legend=None),
        )
    )
    return chart


def label_curve() -> Chart:
    """One small precision-recall curve: ``points`` {recall, precision}, and ``at`` {recall, precision} of the threshold."""
    scale = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format=_SHARE, values=[0, 0.5, 1], title=None)
    x, y = alt.X("recall:Q", scale=scale, axis=axis), alt.Y("precision:Q", scale=scale, axis=axis)
    curve = alt.Chart(alt.NamedData("points"))
    return alt.layer(
        curve.mark_area(fill=_ACCENT, opacity=0.14).encode(x=x, y=y),
        curve.mark_line(stroke=_ACCENT, strokeWidth=1.5).encode(x=x, y=y),
        alt.Chart(alt.NamedData("at"))
        .mark_point(filled=True, fill=_LOOK, size=60, opacity=1)
        .encode(x=x, y=y),
    ).properties(width=150, height=110)


def bars(across: str) -> Chart:
    """``rows`` {low, high, count}: rows by a number; ``zero`` {at}: a line where it is 0, or none."""
    data = alt.Chart(alt.NamedData("rows"))
    scale = alt.Scale(zero=False, nice=False)
    return alt.layer(
        data.mark_bar(binSpacing=1, fill=_ACCENT).encode(
            x=alt.X("low:Q", bin=alt.BinParams(binned=True), scale=scale, axis=_axis(across, _NUMBER)),
            x2="high:Q",
            y=alt.Y("count:Q", axis=_axis("rows", _NUMBER)),
        ),
        alt.Chart(alt.NamedData("zero")).mark_rule(stroke=_BAD, strokeDash=[4, 3]).encode(x="at:Q"),
    )


def predicted_vs_given() -> Chart:
    """``cells`` {x, x2, y, y2, weight 0 to 1}, ``same`` {x, y}: the line of equal numbers."""
    cells = alt.Chart(alt.NamedData("cells"))
    scale = alt.Scale(zero=False, nice=False)
    x = alt.X("x:Q", scale=scale, axis=_axis("given number", _NUMBER))
    y = alt.Y("y:Q", scale=scale, axis=_axis("value", _NUMBER))
    return alt.layer(
        cells.mark_rect(fill=_ACCENT).encode(
            x=x,
            x2="x2:Q",
            y=y,
            y2="y2:Q",
            opacity=alt.Opacity("weight:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 1]), legend=None),
        ),
        alt.Chart(alt.NamedData("same"))
        .mark_line(stroke=_SOFT, strokeDash=[3, 3], strokeWidth=1.2)
        .encode(x=alt.X("x:Q", scale=scale), y=alt.Y("y:Q", scale=scale)),
    ).properties(height=260)


def trend(axis_format: str) -> Chart:
    """A metric over the nights; every ``t`` is in milliseconds UTC.

    ``nights`` {t, value, low, high, other, limit}, null if missing; ``dots`` {t, value, kind}, kind
    ``usual`` or ``bad``; ``gaps`` {t, kind}, kind ``missing`` or ``unfinished``; ``stretches`` {from, to}.
    Parameters: ``first`` and ``last`` of the axis, ``from_zero`` 1 if the value axis starts at zero.
    """
    nights, dots = alt.Chart(alt.NamedData("nights")), alt.Chart(alt.NamedData("dots"))
    scale = alt.Scale(
        type="utc", nice=False, domainMin=alt.ExprRef("first"), domainMax=alt.ExprRef("last"), padding=4
    )
    x = alt.X("t:T", scale=scale, axis=_axis(None, None))
    y = alt.Y("value:Q", scale=alt.Scale(zero=alt.ExprRef("from_zero")), axis=_axis(None, axis_format))
    return alt.layer(
        _stretches(scale),
        nights.mark_area(fill=_ACCENT, opacity=0.22).encode(x=x, y="low:Q", y2="high:Q"),
        nights.mark_line(stroke=_SOFT, strokeWidth=1.2, strokeDash=[2, 2]).encode(x=x, y="other:Q"),
        nights.mark_line(stroke=_BAD, strokeWidth=1.2, strokeDash=[6, 3], interpolate="step").encode(
            x=x, y="limit:Q"
        ),
        nights.mark_line(stroke=_ACCENT, strokeWidth=1.5).encode(x=x, y=y),
        dots.mark_point(filled=True, opacity=1).encode(
            x=x,
            y="value:Q",
            fill=alt.Fill(
                "kind:N", scale=alt.Scale(domain=["usual", "bad"], range=[_ACCENT, _BAD]), legend=None
            ),
            size=alt.Size("kind:N", scale=alt.Scale(domain=["usual", "bad"], range=[10, 28]), legend=None),
        ),
        _gaps(x),
    ).add_params(*(alt.param(name=name, value=0) for name in ("first", "last", "from_zero")))


def _stretches(scale: alt.Scale) -> alt.Chart:
    """A shaded band behind nights that deserve a look."""
    chart: alt.Chart = (
        alt.Chart(alt.NamedData("stretches"))
        .mark_rect(fill=_BAD, opacity=0.14)
        .encode(x=alt.X("from:T", scale=scale), x2="to:T", y=alt.value(0), y2=alt.value(HEIGHT))
    )
    return chart


def _gaps(x: alt.X) -> alt.Chart:
    """A mark at the bottom for each night without numbers."""
    colours = alt.Scale(domain=["missing", "unfinished"], range=[_SOFT, _BAD])
    chart: alt.Chart = (
        alt.Chart(alt.NamedData("gaps"))
        .mark_rule(strokeWidth=2.5)
        .encode(
            x=x,
            y=alt.value(HEIGHT),
            y2=alt.value(HEIGHT - 9),
            stroke=alt.Stroke("kind:N", scale=colours, legend=None),
        )
    )
    return chart


def _axis(title: str | None, axis_format: str | None) -> alt.Axis:
    facts: dict[str, Any] = {}
    if axis_format is not None:
        facts = {"format": axis_format} if axis_format else {"labelExpr": _NUMBER_LABEL}
    return alt.Axis(title=title, tickCount=5, **facts)


CHARTS: dict[str, Callable[[], Chart]] = {
    "reliability": reliability,
    "histogram": histogram,
    "coverage": coverage,
    "precision_recall": precision_recall,
    "label_reliability": lambda: reliability("probability of a label", "share that has it"),
    "least_sure": lambda: histogram("confidence in the least sure label"),
    "all_right": lambda: coverage("all labels right in those"),
    "label_curve": label_curve,
    "errors": lambda: bars("value less given number"),
    "values": lambda: bars("value"),
    "predicted_vs_given": predicted_vs_given,
    "trend_share": lambda: trend(_FINE_SHARE),
    "trend_number": lambda: trend(_NUMBER),
}


def compiled() -> dict[str, Any]:
    """Vega specifications by name, as ``charts.json`` holds them."""
    return {name: _compiled(make()) for name, make in CHARTS.items()}


def _compiled(chart: Chart) -> Any:
    size = {"width": WIDTH, "height": HEIGHT} | {
        key: value for key in ("width", "height") if isinstance(value := getattr(chart, key), int)
    }
    styled = (
        chart.properties(**size, background="transparent", padding=2)
        .configure(aria=False, font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_SOFT,
            titleColor=_SOFT,
            titleFontWeight="normal",
            labelFontSize=12,
            titleFontSize=12,
            gridColor=_LINE,
            domainColor=_LINE,
            tickColor=_LINE,
            labelPadding=4,
        )
        .configure_axisX(grid=False)
    )
    return vl_convert.vegalite_to_vega(styled.to_dict())


def main() -> None:
    """Write ``charts.json``."""
    text = json.dumps(compiled(), indent=1, sort_keys=True)
    Path(__file__).with_name("charts.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
