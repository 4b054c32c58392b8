"""The charts of a window's columns, as plotly figures that the browser draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drift_worker.web.distributions import BinFractions, LevelFractions
from drift_worker.web.figure import (
    BLUE,
    FAINT,
    GREY,
    GRID,
    PALE_GREY,
    RED,
    escape_html,
    evenly_spaced,
    new_figure,
    wrap_label,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

HEIGHT = 190
MAX_LEVEL_TICKS = 12
MAX_UPRIGHT_LABEL = 7  # characters of a level's name that fit below a bar; longer ones stand beside lying bars
LYING_BAR_HEIGHT = 26  # pixels of a level: two bars, or two lines of its name
HOVER_WIDTH, MAX_HOVER_LINES = 40, 8


def distribution_chart(fractions: LevelFractions | BinFractions, drifted: bool) -> go.Figure:
    """Return a chart of a column's distribution in reference and window, as fractions of the values present."""
    color = RED if drifted else BLUE
    if isinstance(fractions, BinFractions):
        return _histogram(fractions, color)
    lying = any(len(level) > MAX_UPRIGHT_LABEL for level in fractions.levels)
    return _lying_bars(fractions, color) if lying else _upright_bars(fractions, color)


def _upright_bars(fractions: LevelFractions, color: str) -> go.Figure:
    labels = [escape_html(level) for level in fractions.levels]
    ticks = evenly_spaced(len(labels), MAX_LEVEL_TICKS)
    names = {"tickvals": ticks, "ticktext": [labels[index] for index in ticks], "showgrid": False, "zeroline": False}
    figure = _new_figure("closest", xaxis=names, yaxis=_fraction_axis(), bargap=0.2)
    positions = list(range(len(labels)))
    for name, values, fill in (("reference", fractions.reference, GREY), ("window", fractions.window, color)):
        figure.add_bar(
            name=name,
            x=positions,
            y=values,
            marker={"color": fill},
            text=labels,
            textposition="none",
            hovertemplate="%{text}: %{y:.1%}",
        )
    _add_others(figure, fractions.others, y=1)
    return figure


def _lying_bars(fractions: LevelFractions, color: str) -> go.Figure:
    labels = [wrap_label(level, max_lines=2) for level in fractions.levels]
    positions = list(range(len(labels)))
    names = {
        **{"tickvals": positions, "ticktext": labels, "autorange": "reversed", "automargin": True},
        **{"showgrid": False, "zeroline": False, "ticks": ""},
    }
    height = max(HEIGHT, 60 + LYING_BAR_HEIGHT * len(labels))
    figure = _new_figure("closest", height=height, xaxis=_fraction_axis(), yaxis=names, bargap=0.25)
    # Bars of one level are drawn from below, and the axis is reversed: the reference is above the window.
    for name, values, fill in (("reference", fractions.reference, GREY), ("window", fractions.window, color)):
        figure.add_bar(
            name=name,
            orientation="h",
            x=values,
            y=positions,
            marker={"color": fill},
            text=[wrap_label(level, HOVER_WIDTH, MAX_HOVER_LINES) for level in fractions.levels],
            textposition="none",
            hovertemplate="%{text}: %{x:.1%}",
        )
    _add_others(figure, fractions.others, y=0)
    return figure


def _histogram(fractions: BinFractions, color: str) -> go.Figure:
    figure = _new_figure("x unified", xaxis={"showgrid": False, "zeroline": False}, yaxis=_fraction_axis())
    figure.add_scatter(
        name="reference",
        x=fractions.centers,
        y=fractions.reference,
        mode="lines",
        line={"shape": "hvh", "width": 0, "color": GREY},
        fill="tozeroy",
        fillcolor=PALE_GREY,
        hovertemplate="%{y:.1%}",
    )
    figure.add_scatter(
        name="window",
        x=fractions.centers,
        y=fractions.window,
        mode="lines",
        line={"shape": "hvh", "width": 2, "color": color},
        hovertemplate="%{y:.1%}",
    )
    return figure


def _new_figure(hovermode: str, xaxis: dict[str, Any], yaxis: dict[str, Any], **layout: Any) -> go.Figure:
    margin = {"l": 40, "r": 8, "t": 8, "b": 36}
    axes = {"xaxis": {"automargin": True} | xaxis, "yaxis": yaxis}
    return new_figure(**{"height": HEIGHT, "margin": margin, "hovermode": hovermode} | axes | layout)


def _fraction_axis() -> dict[str, Any]:
    return {"tickformat": ".0%", "gridcolor": GRID, "zeroline": False, "rangemode": "tozero", "nticks": 5}


def _add_others(figure: go.Figure, text: str, y: float) -> None:
    """Say in a corner of the chart what is left out, if anything is."""
    if text:
        corner = {"xref": "paper", "yref": "paper", "x": 1, "y": y, "xanchor": "right", "yanchor": "bottom"}
        figure.add_annotation(text=text, showarrow=False, font={"color": FAINT}, **corner)
