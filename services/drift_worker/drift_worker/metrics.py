"""Every metric of the drift worker."""

from prometheus_client import Counter, Gauge, Summary

WINDOWS = Counter("driftloop_drift_windows_total", "Judged windows.", ["model", "version", "verdict"])
ROWS = Counter("driftloop_drift_rows_total", "Rows of judged windows.", ["model", "version"])
SCORE = Gauge("driftloop_drift_window_score", "How unusual the latest window is.", ["model", "version"])
LIMIT = Gauge("driftloop_drift_window_limit", "The score above which a window alarms.", ["model", "version"])
ROLLING_SCORE = Gauge(
    "driftloop_drift_rolling_score", "How unusual the latest windows are, taken as one.", ["model", "version"]
)
ROLLING_LIMIT = Gauge("driftloop_drift_rolling_limit", "The score above which they alarm.", ["model", "version"])
STATISTIC = Gauge(
    "driftloop_drift_statistic",
    "A column's statistic in the latest window.",
    ["model", "version", "column", "method", "windows"],
)
THRESHOLD = Gauge(
    "driftloop_drift_threshold",
    "The statistic's value above which the column drifted.",
    ["model", "version", "column", "method", "windows"],
)
SECONDS = Summary("driftloop_drift_window_seconds", "From a window's last event to its verdict on the topic.")
