"""The charts of the overview, as plotly figures that the browser draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from drift_worker.web.figure import (
    BLUE,
    FAINT,
    GRID,
    LIGHT_GREY,
    RED,
    escape_html,
    evenly_spaced,
    label_lines,
    new_figure,
    wrap_label,
)
from driftloop.events import DriftVerdict, Finding, QualityEstimate, QualityVerdict
from driftloop.times import format_utc

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

# Blue up to the threshold, which is a third of the scale, red above it: distinguishable without seeing green.
HEATMAP_COLORS = [[0, "#f5f7f9"], [0.333, "#a9c6da"], [0.334, "#f4c3ab"], [0.6, "#dd6b48"], [1, "#8c2112"]]
MAX_RATIO = 3.0  # multiple of the threshold at which the heat map's colour ends
MAX_TICKS = 6
ROW_HEIGHT, LINE_HEIGHT = 20, 13  # pixels of the heat map's rows: with one line, and more for each further line


def threshold_ratio(finding: Finding) -> float | None:
    """Return a statistic divided by its threshold, which is above 1 only if the column drifted."""
    if finding.value is None or finding.threshold <= 0:
        return None
    ratio = finding.value / finding.threshold
    return ratio if finding.drifted else min(ratio, 1.0)


def largest_finding_by_column(verdict: DriftVerdict) -> dict[str, Finding]:
    """Return each column's finding with the largest ratio to its threshold."""
    ascending = sorted(verdict.findings, key=lambda finding: threshold_ratio(finding) or 0)
    return {finding.column: finding for finding in ascending}


def score_chart(verdicts: Sequence[DriftVerdict]) -> go.Figure:
    """Return a chart of each window's score divided by its threshold, alone and with the windows before it."""
    positions = list(range(len(verdicts)))
    times = [format_utc(verdict.first_prediction_at) for verdict in verdicts]
    figure = new_figure(
        height=340,
        hovermode="closest",
        xaxis=_time_axis([verdict.first_prediction_at for verdict in verdicts]),
        yaxis={"title": {"text": "score ÷ threshold"}, "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        meta=_window_links(verdicts),
    )
    figure.add_scatter(
        name="with the windows before it",
        x=positions,
        y=[_score_ratio(verdict.multiwindow_score, verdict.multiwindow_score_threshold) for verdict in verdicts],
        mode="lines",
        line={"color": FAINT, "width": 2},
        text=times,
        customdata=[[verdict.multiwindow_score, verdict.multiwindow_score_threshold] for verdict in verdicts],
        hovertemplate="%{text}<br>with the windows before it %{customdata[0]:.3g}, threshold %{customdata[1]:.3g}",
    )
    figure.add_scatter(
        name="the window",
        x=positions,
        y=[_score_ratio(verdict.score, verdict.score_threshold) for verdict in verdicts],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 7, "color": [RED if verdict.verdict == "drift" else BLUE for verdict in verdicts]},
        text=times,
        customdata=[[verdict.score, verdict.score_threshold] for verdict in verdicts],
        hovertemplate="%{text}<br>score %{customdata[0]:.3g}, threshold %{customdata[1]:.3g}",
    )
    _add_limit(figure)
    return figure


def cumulated_chart(verdicts: Sequence[DriftVerdict]) -> go.Figure:
    """Return a chart of the cumulated score after each window, with its limit."""
    figure = new_figure(
        height=240,
        hovermode="closest",
        xaxis=_time_axis([verdict.first_prediction_at for verdict in verdicts]),
        yaxis={"title": {"text": "sum ÷ limit"}, "gridcolor": GRID, "zeroline": False, "rangemode": "tozero"},
        showlegend=False,
        meta=_window_links(verdicts),
    )
    figure.add_scatter(
        x=list(range(len(verdicts))),
        y=[verdict.cumulated_score for verdict in verdicts],
        mode="lines+markers",
        line={"color": BLUE, "width": 2},
        marker={"size": 5, "color": [RED if verdict.cumulated_changes else BLUE for verdict in verdicts]},
        text=[format_utc(verdict.first_prediction_at) for verdict in verdicts],
        customdata=[
            "".join(f"<br>{escape_html(column)}" for column in sorted({each.column for each in changes}))
            for changes in (verdict.cumulated_changes for verdict in verdicts)
        ],
        hovertemplate="%{text}<br>cumulated %{y:.2f}%{customdata}<extra></extra>",
    )
    _add_limit(figure)
    return figure


def _add_limit(figure: go.Figure) -> None:
    """Add the line above which the verdict is ``drift``."""
    figure.add_shape(
        type="line", xref="paper", x0=0, x1=1, y0=1, y1=1, line={"color": RED, "width": 1.5, "dash": "dash"}
    )


def drift_heatmap(verdicts: Sequence[DriftVerdict], columns: Sequence[str]) -> go.Figure:
    """Return a heat map of columns by windows with each column's largest ratio; the first column is at the top."""
    findings = [largest_finding_by_column(verdict) for verdict in verdicts]
    labels = [wrap_label(column) for column in columns]
    lines = max(map(label_lines, labels), default=1)
    figure = new_figure(
        height=90 + (ROW_HEIGHT + LINE_HEIGHT * (lines - 1)) * len(columns),
        xaxis={**_time_axis([verdict.first_prediction_at for verdict in verdicts]), "showgrid": False},
        yaxis={
            "autorange": "reversed",
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "fixedrange": True,
            "ticks": "",
            "tickvals": list(range(len(columns))),
            "ticktext": labels,
        },
        meta=_window_links(verdicts),
    )
    figure.add_heatmap(
        x=list(range(len(verdicts))),
        y=list(range(len(columns))),
        z=[
            [threshold_ratio(by_column[column]) if column in by_column else None for by_column in findings]
            for column in columns
        ],
        text=[[_describe_finding(by_column.get(column)) for by_column in findings] for column in columns],
        hovertemplate="%{text}<extra></extra>",
        colorscale=HEATMAP_COLORS,
        zmin=0,
        zmax=MAX_RATIO,
        xgap=1,
        ygap=1,
        colorbar={
            "thickness": 8,
            "outlinewidth": 0,
            "len": 1,
            "xpad": 4,
            "tickvals": [0, 1, 2, 3],
            "ticktext": ["0", "1", "2", "3+"],
        },
    )
    return figure


def quality_chart(
    name: str, title: str, verdicts: Sequence[QualityVerdict], estimates: Sequence[QualityEstimate]
) -> go.Figure:
    """Return a chart of a metric by the time of the predictions: measured by outcomes, and estimated before."""
    measured = [
        (verdict.last_prediction_at, verdict.in_service.metrics[name])
        for verdict in verdicts
        if verdict.in_service and name in verdict.in_service.metrics
    ]
    estimated = [
        (estimate.last_prediction_at, estimate.metrics[name]) for estimate in estimates if name in estimate.metrics
    ]
    times = sorted({time for time, _ in (*measured, *estimated)})
    position = {time: index for index, time in enumerate(times)}
    figure = new_figure(
        height=270,
        hovermode="closest",
        xaxis=_time_axis(times),
        yaxis={"title": {"text": title}, "gridcolor": GRID, "zeroline": False, "fixedrange": True},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    figure.add_scatter(
        name="estimated",
        x=[position[time] for time, _ in estimated],
        y=[value for _, value in estimated],
        mode="markers",
        marker={"size": 6, "color": LIGHT_GREY},
        text=[format_utc(time) for time, _ in estimated],
        hovertemplate="%{text}<br>%{y:.3f}",
    )
    figure.add_scatter(
        name="by outcomes",
        x=[position[time] for time, _ in measured],
        y=[metric.value for _, metric in measured],
        error_y={
            "type": "data",
            "symmetric": False,
            "thickness": 1,
            "width": 3,
            "array": [metric.high - metric.value for _, metric in measured],
            "arrayminus": [metric.value - metric.low for _, metric in measured],
        },
        mode="markers",
        marker={"size": 7, "color": BLUE},
        text=[format_utc(time) for time, _ in measured],
        hovertemplate="%{text}<br>%{y:.3f}",
    )
    return figure


def verdict_path(verdict: DriftVerdict) -> str:
    """Return the path of a verdict's page, not yet quoted as a URL."""
    return f"/windows/{verdict.window.name}/{verdict.model}/{verdict.version}"


def _time_axis(times: Sequence[datetime]) -> dict[str, Any]:
    """Return an axis with a position for each time, all at equal distances.

    The times of windows in the order of their verdicts need not ascend: days of the past can be streamed after the
    present ones.
    """
    ticks = evenly_spaced(len(times), MAX_TICKS)
    return {
        "tickvals": ticks,
        "ticktext": [f"{times[index].astimezone(UTC):%Y-%m-%d<br>%H:%M}" for index in ticks],
        "range": [-0.5, len(times) - 0.5],
        "gridcolor": GRID,
        "zeroline": False,
        "tickangle": 0,
        "ticks": "outside",
        "ticklen": 7,  # away from the labels of the other axis
        "tickcolor": "rgba(0,0,0,0)",
        "fixedrange": True,
    }


def _window_links(verdicts: Sequence[DriftVerdict]) -> dict[str, list[str]]:
    """Return the pages that a click on a window leads to, by position; charts.js reads them."""
    return {"links": [verdict_path(verdict) for verdict in verdicts]}


def _score_ratio(score: float | None, threshold: float | None) -> float | None:
    if score is None or not threshold or not math.isfinite(score):
        return None
    return score / threshold


def _describe_finding(finding: Finding | None) -> str:
    if finding is None:
        return "no statistics"
    windows = "" if finding.windows == 1 else f" of {finding.windows} windows"
    value = "no value" if finding.value is None else f"{finding.value:.3g}"
    return f"{escape_html(finding.column)}<br>{finding.method}{windows}: {value}<br>threshold {finding.threshold:.3g}"
