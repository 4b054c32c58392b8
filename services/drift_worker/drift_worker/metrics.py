"""Every metric of the drift worker."""

from prometheus_client import Counter, Gauge, Histogram, Summary

WINDOWS = Counter("driftloop_drift_windows_total", "Judged windows.", ["model", "version", "verdict"])
ROWS = Counter("driftloop_drift_rows_total", "Rows of judged windows.", ["model", "version"])
SCORE = Gauge("driftloop_drift_window_score", "How unusual the latest window is.", ["model", "version"])
LIMIT = Gauge("driftloop_drift_window_limit", "The score above which a window alarms.", ["model", "version"])
ROLLING_SCORE = Gauge(
    "driftloop_drift_rolling_score", "How unusual the latest windows are, taken as one.", ["model", "version"]
)
ROLLING_LIMIT = Gauge("driftloop_drift_rolling_limit", "The score above which they alarm.", ["model", "version"])
WINDOW_END = Gauge(
    "driftloop_drift_window_end_timestamp_seconds",
    "The time of the last row of the latest judged window, which all of a version's figures here are of.",
    ["model", "version"],
)
ALARMING = Gauge("driftloop_drift_alarming", "1 while the latest judged window alarms.", ["model", "version"])
ALARMS_IN_A_ROW = Gauge(
    "driftloop_drift_alarms_in_a_row", "Alarms since the latest quiet window.", ["model", "version"]
)
COLUMN_DRIFTED = Gauge(
    "driftloop_drift_column_drifted",
    "1 where a statistic of the column is above its threshold in the latest judged window.",
    ["model", "version", "column"],
)
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
ARCHIVE_SECONDS = Histogram(
    "driftloop_drift_archive_seconds",
    "Writing a slice to the archive.",
    buckets=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50],
)
REPORTS = Counter("driftloop_drift_reports_total", "Reports: made, failed, or dropped before their turn.", ["state"])
REPORT_SECONDS = Histogram(
    "driftloop_drift_report_seconds",
    "What a report takes, from its turn to its end.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500],
)
QUALITY = Gauge(
    "driftloop_quality",
    "How good a version is by its latest outcomes; unset while unknown.",
    ["model", "version", "figure"],
)
QUALITY_LOW = Gauge("driftloop_quality_low", "Lower end of its interval (95 %).", ["model", "version", "figure"])
QUALITY_HIGH = Gauge("driftloop_quality_high", "Upper end of its interval (95 %).", ["model", "version", "figure"])
QUALITY_END = Gauge(
    "driftloop_quality_end_timestamp_seconds",
    "The time of the last of the rows that these figures are of.",
    ["model", "version"],
)
QUALITY_MEASURED = Gauge(
    "driftloop_quality_measured",
    "The same as the gate measured it before the version served.",
    ["model", "version", "figure"],
)
QUALITY_MEASURED_LOW = Gauge(
    "driftloop_quality_measured_low", "Lower end of the gate's interval (95 %).", ["model", "version", "figure"]
)
QUALITY_MEASURED_HIGH = Gauge(
    "driftloop_quality_measured_high", "Upper end of the gate's interval (95 %).", ["model", "version", "figure"]
)
QUALITY_ESTIMATE = Gauge(
    "driftloop_quality_estimate",
    "The same as the latest window's probabilities promise it; to be read beside its error.",
    ["model", "version", "figure"],
)
QUALITY_ESTIMATE_ERROR = Gauge(
    "driftloop_quality_estimate_error",
    "How much too high estimates were on average, on windows whose outcomes are known since.",
    ["model", "version", "figure"],
)
UNMATCHED = Counter(
    "driftloop_outcomes_unmatched_total", "Outcomes whose prediction was not in the archive when their slice closed."
)
