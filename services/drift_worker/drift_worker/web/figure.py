"""What all charts of the pages share: colours, an empty figure, and labels that plotly shows as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import plotly.graph_objects as go  # type: ignore[import-untyped]

INK, FAINT, GRID = "#3c4a57", "#8d99a5", "#e6eaee"
BLUE, RED, GREY = "#4a7fa5", "#c8472f", "#b9c2ca"
LIGHT_GREY, PALE_GREY = "#c3ccd3", "#dfe4e8"
LABEL_WIDTH = 20  # characters of a line; a phone has room for them beside a chart
MAX_LABEL_LINES = 3


def new_figure(**layout: Any) -> go.Figure:
    """Return an empty figure with the pages' layout. ``layout`` adds to it and takes precedence."""
    import plotly.graph_objects as go  # noqa: PLC0415  # a worker that draws no page starts without it

    defaults = {
        "template": "none",  # without plotly's own colours, and 7 KB less a figure
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 50, "r": 10, "t": 10, "b": 40},
        "showlegend": False,
        "dragmode": False,
    }
    return go.Figure(layout=defaults | layout)


def evenly_spaced(count: int, max_count: int) -> list[int]:
    """Return at most ``max_count`` of ``count`` positions, evenly spaced."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, max_count))})


def escape_html(text: str) -> str:
    """Escape a text for plotly, which interprets some HTML in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def wrap_label(text: str, width: int = LABEL_WIDTH, max_lines: int = MAX_LABEL_LINES) -> str:
    """Return a name in lines for plotly, broken between its words; only a word that is longer than a line is split.

    A name with more lines ends in an ellipsis. The charts show it in full where the mouse points.
    """
    lines = list(_lines(text, width))
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1][: width - 1]}…"]
    return "<br>".join(map(escape_html, lines))


def label_lines(label: str) -> int:
    """Return the number of lines of a label that :func:`wrap_label` returned."""
    return label.count("<br>") + 1


def _lines(text: str, width: int) -> Iterator[str]:
    line = ""
    # A separator stays with the word before it.
    for word in re.findall(r"[^\s_\-./:]*[\s_\-./:]+|[^\s_\-./:]+", text):
        if line and len(line) + len(word.rstrip()) > width:
            yield line.rstrip()
            line = ""
        line += word
        while len(line.rstrip()) > width:
            yield line[:width]
            line = line[width:]
    if line or not text:
        yield line.rstrip()
