"""What the pages draw, as plotly's JSON. Pure; plotly itself is needed by the browser alone."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from driftloop.drift.distances import ColumnType, FloatArray
from driftloop.drift.statistics import to_float_array
from driftloop.events import DriftVerdict, Finding, QualityEstimate, QualityVerdict

PlotlyFigure = dict[str, Any]

INK, FAINT, GRID = "#3c4a57", "#8d99a5", "#e6eaee"
BLUE, RED, GREY = "#4a7fa5", "#c8472f", "#b9c2ca"
# Blue up to the threshold, which is a third of the scale; from there on red: told apart without green.
HEAT = [[0, "#f5f7f9"], [0.333, "#a9c6da"], [0.334, "#f4c3ab"], [0.6, "#dd6b48"], [1, "#8c2112"]]
MOST_UNUSUAL = 3.0  # thresholds at which the heat map's colour is full
FEW_VALUES = 20  # different numbers up to which each has a bar of its own
BINS = 40
MOST_LEVELS = 12  # bars that can still be read on a phone
TAIL = 0.005  # of the values on either side that lie in the outermost bins


def threshold_ratio(finding: Finding) -> float | None:
    """A statistic in thresholds: above 1 it drifted."""
    if finding.value is None or finding.threshold <= 0:
        return None
    return finding.value / finding.threshold


def max_ratio_by_column(verdict: DriftVerdict) -> dict[str, Finding]:
    """By column, the finding that lies furthest in its thresholds."""
    found: dict[str, Finding] = {}
    for finding in sorted(verdict.findings, key=lambda finding: threshold_ratio(finding) or 0):
        found[finding.column] = finding
    return found


def score_chart(verdicts: Sequence[DriftVerdict]) -> PlotlyFigure:
    """Each window's score in limits, alone and together with those before it."""
    alone = [_share(v.score, v.score_threshold) for v in verdicts]
    rolling = [_share(v.multiwindow_score, v.multiwindow_score_threshold) for v in verdicts]
    places = list(range(len(verdicts)))
    times = [_utc(verdict.first_prediction_at) for verdict in verdicts]
    return {
        "data": [
            {
                **_line("with those before it", places, rolling, FAINT),
                "customdata": [[v.multiwindow_score, v.multiwindow_score_threshold] for v in verdicts],
                "text": times,
                "hovertemplate": "%{text}<br>with those before it %{customdata[0]:.3g}, limit %{customdata[1]:.3g}",
            },
            {
                **_line("the window", places, alone, BLUE),
                "mode": "lines+markers",
                "marker": {"size": 7, "color": [RED if v.verdict == "drift" else BLUE for v in verdicts]},
                "customdata": [[v.score, v.score_threshold] for v in verdicts],
                "text": times,
                "hovertemplate": "%{text}<br>score %{customdata[0]:.3g}, limit %{customdata[1]:.3g}",
            },
        ],
        "layout": _layout(
            height=340,
            hovermode="closest",
            xaxis=_times([verdict.first_prediction_at for verdict in verdicts]),
            yaxis={"title": {"text": "score ÷ limit"}, "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"},
            shapes=[
                {
                    **{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1},
                    "line": {"color": RED, "width": 1.5, "dash": "dash"},
                }
            ],
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            meta=_links(verdicts),
        ),
    }


def drift_heatmap(verdicts: Sequence[DriftVerdict], columns: Sequence[str]) -> PlotlyFigure:
    """Columns by windows: how far each column's most unusual statistic lies, in thresholds; the first column on top."""
    found = [max_ratio_by_column(verdict) for verdict in verdicts]
    values = [[threshold_ratio(one[column]) if column in one else None for one in found] for column in columns]
    words = [[_in_words(one.get(column)) for one in found] for column in columns]
    return {
        "data": [
            {
                "type": "heatmap",
                "z": values,
                "y": list(range(len(columns))),
                "x": list(range(len(verdicts))),
                "text": words,
                "hovertemplate": "%{text}<extra></extra>",
                "colorscale": HEAT,
                "zmin": 0,
                "zmax": MOST_UNUSUAL,
                "xgap": 1,
                "ygap": 1,
                "colorbar": {
                    **{"thickness": 8, "outlinewidth": 0, "tickvals": [0, 1, 2, 3], "ticktext": ["0", "1", "2", "3+"]},
                    **{"len": 1, "xpad": 4},
                },
            }
        ],
        "layout": _layout(
            height=90 + 20 * len(columns),
            xaxis={**_times([verdict.first_prediction_at for verdict in verdicts]), "showgrid": False},
            yaxis={
                **{"autorange": "reversed", "showgrid": False, "zeroline": False, "automargin": True},
                **{"ticks": "", "fixedrange": True, "tickvals": list(range(len(columns)))},
                "ticktext": [escape_html(_short(column)) for column in columns],
            },
            meta=_links(verdicts),
        ),
    }


def quality_chart(
    name: str, title: str, qualities: Sequence[QualityVerdict], estimates: Sequence[QualityEstimate]
) -> PlotlyFigure:
    """A figure of quality by when the predictions were made: as outcomes showed it, and as it was estimated."""
    found = [
        (one.last_prediction_at, one.in_service.metrics[name])
        for one in qualities
        if one.in_service and name in one.in_service.metrics
    ]
    expected = [(one.last_prediction_at, one.metrics[name]) for one in estimates if name in one.metrics]
    times = sorted({ends for ends, _ in (*found, *expected)})
    places = {ends: place for place, ends in enumerate(times)}
    dots = {"type": "scatter", "mode": "markers", "hovertemplate": "%{text}<br>%{y:.3f}"}
    return {
        "data": [
            {
                **{**dots, "name": "estimated", "marker": {"size": 6, "color": "#c3ccd3"}},
                **{"x": [places[ends] for ends, _ in expected], "y": [value for _, value in expected]},
                "text": [_utc(ends) for ends, _ in expected],
            },
            {
                **{**dots, "name": "by outcomes", "marker": {"size": 7, "color": BLUE}},
                **{"x": [places[ends] for ends, _ in found], "y": [figure.value for _, figure in found]},
                "text": [_utc(ends) for ends, _ in found],
                "error_y": {
                    **{"type": "data", "symmetric": False, "thickness": 1, "width": 3},
                    "array": [figure.high - figure.value for _, figure in found],
                    "arrayminus": [figure.value - figure.low for _, figure in found],
                },
            },
        ],
        "layout": _layout(
            height=270,
            hovermode="closest",
            xaxis=_times(times),
            yaxis={"title": {"text": title}, "gridcolor": GRID, "zeroline": False, "fixedrange": True},
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        ),
    }


def distribution_chart(kind: ColumnType, reference: pd.Series, window: pd.Series, drifted: bool) -> PlotlyFigure:
    """How a column's values are spread in the reference and in a window, as shares of those that are not missing."""
    colour = RED if drifted else BLUE
    layout = _layout(
        height=190,
        margin={"l": 40, "r": 8, "t": 8, "b": 36},
        xaxis={"showgrid": False, "zeroline": False, "automargin": True},
        yaxis={"tickformat": ".0%", "gridcolor": GRID, "zeroline": False, "rangemode": "tozero", "nticks": 5},
        hovermode="x unified",
    )
    if kind == "category":
        names, before, now, others = _levels(reference, window)
        place = {"xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right", "showarrow": False}
        layout["annotations"] = [{**place, "text": others, "font": {"color": FAINT}}]
        return _bars(names, before, now, colour, layout)
    known, seen = _finite(reference), _finite(window)
    values = np.unique(seen)
    if len(values) <= FEW_VALUES:  # the reference is the longer one: it is only sorted where this may be true
        values = np.union1d(values, known)
    if len(values) <= FEW_VALUES:
        before, now = ([float((side == value).sum()) / max(len(side), 1) for value in values] for side in (known, seen))
        return _bars([f"{value:.4g}" for value in values], before, now, colour, layout)
    edges = _edges(known, seen)
    return {"data": _steps(edges, _shares(known, edges), _shares(seen, edges), colour), "layout": layout}


def escape_html(text: str) -> str:
    """A text that plotly, which reads some HTML in its labels, shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def verdict_path(verdict: DriftVerdict) -> str:
    """The page of a verdict, up to what has to be quoted in it."""
    return f"/windows/{verdict.window.name}/{verdict.model}/{verdict.version}"


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def _share(value: float | None, limit: float | None) -> float | None:
    if value is None or not limit or not math.isfinite(value):
        return None
    return value / limit


def _line(name: str, x: list[int], y: list[float | None], colour: str) -> PlotlyFigure:
    line = {"color": colour, "width": 2}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _times(times: Sequence[datetime]) -> PlotlyFigure:
    """Windows side by side, whatever time lies between them: a replay of the past comes after the present."""
    places = sorted({round(place) for place in np.linspace(0, len(times) - 1, min(len(times), 6))})
    return {
        "tickvals": places,
        "ticktext": [f"{times[place].astimezone(UTC):%d %b<br>%H:%M}" for place in places],
        "range": [-0.5, len(times) - 0.5],
        "gridcolor": GRID,
        "zeroline": False,
        "tickangle": 0,
        "fixedrange": True,
    }


def _links(verdicts: Sequence[DriftVerdict]) -> PlotlyFigure:
    """Where a click on a window leads."""
    return {"links": [verdict_path(verdict) for verdict in verdicts]}


def _in_words(finding: Finding | None) -> str:
    if finding is None:
        return "not judged"
    of = "" if finding.windows == 1 else f" of {finding.windows} windows"
    value = "no value" if finding.value is None else f"{finding.value:.3g}"
    return f"{escape_html(finding.column)}<br>{finding.method}{of}: {value}<br>threshold {finding.threshold:.3g}"


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _finite(column: pd.Series) -> FloatArray:
    values = to_float_array(column)
    return values[np.isfinite(values)]


def _edges(known: FloatArray, seen: FloatArray) -> FloatArray:
    ends = [np.quantile(side, [TAIL, 1 - TAIL]) for side in (known, seen) if len(side)]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _shares(values: FloatArray, edges: FloatArray) -> list[float]:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [float(count) for count in counts / max(len(values), 1)]


def _levels(reference: pd.Series, window: pd.Series) -> tuple[list[str], list[float], list[float], str]:
    """The levels that are commonest on either side, and in words what the others have together."""
    known, seen = (side.dropna().astype(str).value_counts(normalize=True) for side in (reference, window))
    shares = pd.DataFrame({"known": known, "seen": seen}).fillna(0.0)
    order = shares.max(axis=1).sort_values(ascending=False, kind="stable").index
    shown, others = shares.loc[order[:MOST_LEVELS]], shares.loc[order[MOST_LEVELS:]].sum()
    left = len(order) - len(shown)
    words = f"{left} others: {others['known']:.0%} → {others['seen']:.0%}" if left else ""
    return [str(name) for name in shown.index], shown["known"].tolist(), shown["seen"].tolist(), words


def _bars(names: list[str], known: list[float], seen: list[float], colour: str, layout: PlotlyFigure) -> PlotlyFigure:
    labels = [escape_html(_short(name)) for name in names]
    shown = sorted({round(place) for place in np.linspace(0, len(names) - 1, min(len(names), MOST_LEVELS))})
    ticks = {"tickvals": shown, "ticktext": [labels[place] for place in shown]}
    return {
        "data": [
            {
                **{"type": "bar", "name": name, "x": list(range(len(names))), "y": shares, "marker": {"color": fill}},
                **{"text": labels, "textposition": "none", "hovertemplate": "%{text}: %{y:.1%}"},
            }
            for name, shares, fill in (("reference", known, GREY), ("window", seen, colour))
        ],
        "layout": {**layout, "bargap": 0.2, "hovermode": "closest", "xaxis": {**layout["xaxis"], **ticks}},
    }


def _steps(edges: FloatArray, known: list[float], seen: list[float], colour: str) -> list[PlotlyFigure]:
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()
    common = {"type": "scatter", "mode": "lines", "x": centres, "hovertemplate": "%{y:.1%}"}
    return [
        {
            **{**common, "name": "reference", "y": known, "fill": "tozeroy", "fillcolor": "#dfe4e8"},
            "line": {"shape": "hvh", "width": 0, "color": GREY},
        },
        {**common, "name": "window", "y": seen, "line": {"shape": "hvh", "width": 2, "color": colour}},
    ]


def _layout(**more: Any) -> PlotlyFigure:
    return {
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        "showlegend": False,
        "dragmode": False,
        **more,
    }
