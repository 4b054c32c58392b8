"""Test the figures of the charts: names that are not cut, times with their year, numbers beside distributions."""

import numpy as np
import pandas as pd
import pytest

from drift_worker.web.charts import cumulated_chart, drift_heatmap
from drift_worker.web.distribution_charts import distribution_chart
from drift_worker.web.distributions import compare_column
from drift_worker.web.figure import label_lines, wrap_label
from drift_worker.web.templating import mark_line_breaks
from driftloop.events import CumulatedChange, DriftVerdict, Finding, Window
from tests.support.drift_windows import BEGIN

LONG = "number_of_days_since_the_last_inspection"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("temp", "temp"),
        (LONG, "number_of_days_<br>since_the_last_<br>inspection"),
        ("American Airlines Group", "American Airlines<br>Group"),
        ("a" * 25, f"{'a' * 20}<br>aaaaa"),
        ("a<b>&", "a&lt;b&gt;&amp;"),
        (f"{LONG}_of_the_year", "number_of_days_<br>since_the_last_<br>inspection_of_the_…"),
        ("", ""),
    ],
    ids=["short", "underscores", "spaces", "one word", "html", "too long", "empty"],
)
def test_wrapped_label_breaks_between_words(name: str, label: str) -> None:
    assert wrap_label(name) == label


def verdict_with(**fields: object) -> DriftVerdict:
    return DriftVerdict(
        window=Window(topic="predictions", partition=0, first_offset=0, last_offset=0),
        model="m",
        version="1",
        rows=1,
        first_prediction_at=BEGIN,
        last_prediction_at=BEGIN,
        verdict="no_drift",
        explanation="",
        archive=["gs://b/x.parquet"],
        **fields,
    )


def test_cumulated_chart_has_the_score_after_each_window_and_marks_alarms() -> None:
    change = CumulatedChange(column="a<b", statistic="mean_rank", direction="up", windows=3, score=1.5)
    figure = cumulated_chart(
        [
            verdict_with(cumulated_score=0.5),
            verdict_with(),
            verdict_with(cumulated_score=1.5, cumulated_changes=[change]),
        ]
    ).to_plotly_json()
    (line,) = figure["data"]
    assert line["y"] == [0.5, None, 1.5]
    assert len(set(line["marker"]["color"][:2])) == 1
    assert line["marker"]["color"][2] != line["marker"]["color"][0]
    assert line["customdata"] == ["", "", "<br>a&lt;b"]
    assert figure["layout"]["shapes"][0]["y0"] == 1


def test_heatmap_has_full_names_and_times_with_their_year() -> None:
    finding = Finding(column=LONG, method="wasserstein", value=1.0, threshold=2.0, drifted=False)
    verdict = verdict_with(findings=[finding])
    figure = drift_heatmap([verdict], [LONG]).to_plotly_json()
    assert figure["layout"]["xaxis"]["ticktext"] == ["2013-01-01<br>00:00"]
    (label,) = figure["layout"]["yaxis"]["ticktext"]
    assert label.replace("<br>", "") == LONG
    assert label_lines(label) == 3
    assert LONG in figure["data"][0]["text"][0][0]


@pytest.mark.parametrize(("level", "orientation"), [("UA", None), ("United Airlines", "h")], ids=["short", "long"])
def test_long_names_of_levels_stand_beside_lying_bars(level: str, orientation: str | None) -> None:
    column = pd.Series([level, "DL"])
    figure = distribution_chart(compare_column("category", column, column).fractions, drifted=False).to_plotly_json()
    assert [trace.get("orientation") for trace in figure["data"]] == [orientation] * 2


def test_statistics_of_a_number() -> None:
    reference, window = pd.Series([1.0, 2.0, 6.0, np.nan]), pd.Series([np.nan, np.nan])
    found = {s.name: (s.reference, s.window) for s in compare_column("number", reference, window).statistics}
    deviation = pytest.approx(np.std([1, 2, 6]))
    assert found == {
        **{"mean": (3, None), "median": (2, None), "standard deviation": (deviation, None), "missing": (0.25, 1)},
    }


def test_statistics_of_a_category_are_its_largest_changes() -> None:
    reference = pd.Series(["a"] * 50 + ["b"] * 30 + ["c"] * 10 + ["d"] * 10)
    window = pd.Series(["a"] * 48 + ["c"] * 41 + ["d"] * 11)
    *changes, missing = compare_column("category", reference, window).statistics
    assert [(s.name, s.reference, s.window) for s in changes] == [
        *(("c", 0.1, 0.41), ("b", 0.3, 0.0), ("a", 0.5, 0.48)),
    ]
    assert (missing.reference, missing.window) == (0, 0)


def test_names_may_break_behind_underscores_and_are_escaped() -> None:
    assert mark_line_breaks("a_b.c<x>") == "a_<wbr>b.<wbr>c&lt;x&gt;"
