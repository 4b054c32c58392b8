"""The dashboard "Drift by column": which columns have changed, by how much, for which version."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import COLUMN, MODEL, VERSION, build_dashboard
from grafana.loop import SELECTOR
from grafana.panels import bar_gauge, heatmap, instant_query, range_query, stat, time_series, windows_link
from grafana.steps import SERVING

THRESHOLD_RATIO = f"driftloop_drift_statistic{{{SELECTOR}}} / (driftloop_drift_threshold > 0)"
"""Statistics divided by their thresholds, which have the same labels."""
DRIFTED = f"driftloop_drift_column_drifted{{{SELECTOR}}}"
COLUMN_SELECTOR = f'{SELECTOR}, column="$column"'


def dashboard() -> Dashboard:
    """Build the dashboard that shows why windows raise alarms."""
    return build_dashboard(
        "drift",
        "driftloop: drift by column",
        "Which columns have changed, by how much, for which version? The windows themselves, and evidently's reports "
        "on them, are on the drift worker's pages: see the links.",
        [MODEL, VERSION, COLUMN],
        (
            "All columns",
            [
                stat(
                    "Drifted columns",
                    "Columns of the version in service with a statistic above its threshold in the latest window.",
                    "short",
                    instant_query(f"count(max by (column) ({DRIFTED} and {SERVING}) == 1) or vector(0)", "drifted"),
                    instant_query(f"count(count by (column) ({DRIFTED} and {SERVING}))", "of"),
                ),
                stat(
                    "Consecutive alarms",
                    "Alarms of the version in service since its latest window without drift.",
                    "short",
                    instant_query(f"max(driftloop_drift_consecutive_alarms{{{SELECTOR}}} and {SERVING})", "alarms"),
                ),
                stat(
                    "Windows by verdict, total",
                    "Windows of the selected versions by verdict, since the drift workers started.",
                    "short",
                    instant_query(f"sum by (verdict) (driftloop_drift_windows_total{{{SELECTOR}}})", "{{verdict}}"),
                    span=12,
                ),
                heatmap(
                    "Statistics relative to thresholds",
                    "Each column's largest statistic divided by its threshold, of the version in service: white at the "
                    "threshold, red above it. A single red row is one changed column; a red block is a change of many "
                    "columns at once.",
                    "percentunit",
                    range_query(f"max by (column) ({THRESHOLD_RATIO} and {SERVING})", "{{column}}"),
                    max_value=2,
                ),
                bar_gauge(
                    "Latest window: columns by statistic relative to threshold",
                    "Columns of the version in service, the largest ratio first. From 100 % on the column has drifted.",
                    instant_query(f"sort_desc(max by (column) ({THRESHOLD_RATIO} and {SERVING}))", "{{column}}"),
                ),
                time_series(
                    "Drifted columns by version",
                    "The number of drifted columns of each version, compared with its own reference. A version that "
                    "is no longer in service keeps its last value.",
                    "short",
                    range_query(f"sum by (version) (max by (version, column) ({DRIFTED}))", "version {{version}}"),
                ).data_links(windows_link()),
                time_series(
                    "Cumulated score",
                    "The largest sum of small differences over a version's windows, divided by its limit. Above 100 % "
                    "a small change has lasted, and the latest window is an alarm.",
                    "percentunit",
                    range_query(
                        f"max by (version) (driftloop_drift_cumulated_score{{{SELECTOR}}})", "version {{version}}"
                    ),
                ).data_links(windows_link()),
            ],
        ),
        (
            "$column",
            [
                time_series(
                    "Statistics and thresholds, one window",
                    "The column's statistics in the latest window, each with its threshold. Above it the column has "
                    "drifted.",
                    "none",
                    range_query(
                        f'max by (version, method) (driftloop_drift_statistic{{{COLUMN_SELECTOR}, windows="1"}})',
                        "{{method}}, version {{version}}",
                    ),
                    range_query(
                        f'max by (version, method) (driftloop_drift_threshold{{{COLUMN_SELECTOR}, windows="1"}})',
                        "threshold of {{method}}, version {{version}}",
                    ),
                ),
                time_series(
                    "Statistics and thresholds, several windows",
                    "The column's statistics over the latest windows together, each with its threshold. Changes that "
                    "are too small for one window show here.",
                    "none",
                    range_query(
                        f'max by (version, method) (driftloop_drift_statistic{{{COLUMN_SELECTOR}, windows!="1"}})',
                        "{{method}}, version {{version}}",
                    ),
                    range_query(
                        f'max by (version, method) (driftloop_drift_threshold{{{COLUMN_SELECTOR}, windows!="1"}})',
                        "threshold of {{method}}, version {{version}}",
                    ),
                ),
            ],
        ),
    )
