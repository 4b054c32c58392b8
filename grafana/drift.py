"""Drift by column: which columns have changed, by how much, for which version."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import COLUMN, MODEL, VERSION, board
from grafana.loop import OF
from grafana.panels import chart, heat, latest, number, ranking, series, to_windows
from grafana.steps import SERVING

SHARE = f"driftloop_drift_statistic{{{OF}}} / (driftloop_drift_threshold > 0)"
"""Statistics in their thresholds: the series have the same labels."""
DRIFTED = f"driftloop_drift_column_drifted{{{OF}}}"
OF_COLUMN = f'{OF}, column="$column"'


def dashboard() -> Dashboard:
    """The dashboard for whoever asks why windows alarm."""
    return board(
        "drift",
        "driftloop: drift by column",
        "Which columns have changed, by how much, for which version? The windows themselves, and evidently's reports "
        "on them, are on the drift worker's pages: see the links.",
        [MODEL, VERSION, COLUMN],
        (
            "All columns",
            [
                number(
                    "Drifted columns",
                    "Columns of the version in service with a statistic above its threshold in the latest window.",
                    "short",
                    latest(f"count(max by (column) ({DRIFTED} and {SERVING}) == 1) or vector(0)", "drifted"),
                    latest(f"count(count by (column) ({DRIFTED} and {SERVING}))", "of"),
                ),
                number(
                    "Alarms in a row",
                    "Alarms of the version in service since its latest quiet window.",
                    "short",
                    latest(f"max(driftloop_drift_consecutive_alarms{{{OF}}} and {SERVING})", "alarms"),
                ),
                number(
                    "Windows",
                    "Windows of these versions by verdict, since the drift workers started.",
                    "short",
                    latest(f"sum by (verdict) (driftloop_drift_windows_total{{{OF}}})", "{{verdict}}"),
                    span=12,
                ),
                heat(
                    "Statistic in thresholds",
                    "Each column's largest statistic in its threshold, of the version that is in service: white at the "
                    "threshold, red above it. One red row is one column that changed; a red block is the world.",
                    "percentunit",
                    series(f"max by (column) ({SHARE} and {SERVING})", "{{column}}"),
                    most=2,
                ),
                ranking(
                    "Latest window: columns by statistic in thresholds",
                    "Of the version in service, the most unusual first. From 100 % on the column drifted.",
                    latest(f"sort_desc(max by (column) ({SHARE} and {SERVING}))", "{{column}}"),
                ),
                chart(
                    "Drifted columns by version",
                    "How many, each version against what it has learned; one that is no longer in service keeps its "
                    "last.",
                    "short",
                    series(f"sum by (version) (max by (version, column) ({DRIFTED}))", "version {{version}}"),
                ).data_links(to_windows()),
            ],
        ),
        (
            "$column",
            [
                chart(
                    "Statistic against threshold, one window",
                    "The column's statistics in the latest window, each with its threshold: above it, drifted.",
                    "none",
                    series(
                        f'max by (version, method) (driftloop_drift_statistic{{{OF_COLUMN}, windows="1"}})',
                        "{{method}}, version {{version}}",
                    ),
                    series(
                        f'max by (version, method) (driftloop_drift_threshold{{{OF_COLUMN}, windows="1"}})',
                        "threshold of {{method}}, version {{version}}",
                    ),
                ),
                chart(
                    "Statistic against threshold, several windows",
                    "The same for the latest windows taken as one: a change too small for one window shows here.",
                    "none",
                    series(
                        f'max by (version, method) (driftloop_drift_statistic{{{OF_COLUMN}, windows!="1"}})',
                        "{{method}}, version {{version}}",
                    ),
                    series(
                        f'max by (version, method) (driftloop_drift_threshold{{{OF_COLUMN}, windows!="1"}})',
                        "threshold of {{method}}, version {{version}}",
                    ),
                ),
            ],
        ),
    )
