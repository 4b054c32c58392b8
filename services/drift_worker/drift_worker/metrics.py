"""Every metric of the drift worker."""

from prometheus_client import Counter, Gauge, Histogram, Summary

WINDOWS = Counter("driftloop_drift_windows_total", "Judged windows.", ["model", "version", "verdict"])
ROWS = Counter("driftloop_drift_rows_total", "Rows of judged windows.", ["model", "version"])
WINDOW_SCORE = Gauge("driftloop_drift_window_score", "How unusual the latest window is.", ["model", "version"])
WINDOW_SCORE_THRESHOLD = Gauge(
    "driftloop_drift_window_score_threshold", "The score above which a window alarms.", ["model", "version"]
)
MULTIWINDOW_SCORE = Gauge(
    "driftloop_drift_multiwindow_score", "How unusual the latest windows are, taken as one.", ["model", "version"]
)
MULTIWINDOW_SCORE_THRESHOLD = Gauge(
    "driftloop_drift_multiwindow_score_threshold", "The score above which they alarm.", ["model", "version"]
)
WINDOW_END = Gauge(
    "driftloop_drift_window_end_timestamp_seconds",
    "The time of the last row of the latest judged window, which all of a version's figures here are of.",
    ["model", "version"],
)
WINDOW_ALARM = Gauge("driftloop_drift_window_alarm", "1 while the latest judged window alarms.", ["model", "version"])
CONSECUTIVE_ALARMS = Gauge(
    "driftloop_drift_consecutive_alarms", "Alarms since the latest quiet window.", ["model", "version"]
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
VERDICT_LATENCY = Summary(
    "driftloop_drift_verdict_latency_seconds", "From a window's last event to its verdict on the topic."
)
ARCHIVE_WRITE_SECONDS = Histogram(
    "driftloop_archive_write_seconds",
    "Writing a slice to the archive.",
    buckets=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50],
)
REPORTS = Counter("driftloop_drift_reports_total", "Reports: made, failed, or dropped before their turn.", ["state"])
REPORT_DURATION = Histogram(
    "driftloop_drift_report_duration_seconds",
    "What a report takes, from its turn to its end.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500],
)
QUALITY = Gauge(
    "driftloop_quality",
    "How good a version is by its latest outcomes; unset while unknown.",
    ["model", "version", "metric"],
)
QUALITY_LOW = Gauge("driftloop_quality_low", "Lower end of its interval (95 %).", ["model", "version", "metric"])
QUALITY_HIGH = Gauge("driftloop_quality_high", "Upper end of its interval (95 %).", ["model", "version", "metric"])
QUALITY_END = Gauge(
    "driftloop_quality_end_timestamp_seconds",
    "The time of the last of the rows that these figures are of.",
    ["model", "version"],
)
QUALITY_AT_GATE = Gauge(
    "driftloop_quality_at_gate",
    "The same as the gate measured it before the version served.",
    ["model", "version", "metric"],
)
QUALITY_AT_GATE_LOW = Gauge(
    "driftloop_quality_at_gate_low", "Lower end of the gate's interval (95 %).", ["model", "version", "metric"]
)
QUALITY_AT_GATE_HIGH = Gauge(
    "driftloop_quality_at_gate_high", "Upper end of the gate's interval (95 %).", ["model", "version", "metric"]
)
QUALITY_ESTIMATE = Gauge(
    "driftloop_quality_estimate",
    "The same as the latest window's probabilities promise it; to be read beside its error.",
    ["model", "version", "metric"],
)
QUALITY_ESTIMATE_BIAS = Gauge(
    "driftloop_quality_estimate_bias",
    "How much too high estimates were on average, on windows whose outcomes are known since.",
    ["model", "version", "metric"],
)
UNMATCHED_OUTCOMES = Counter(
    "driftloop_outcomes_unmatched_total", "Outcomes whose prediction was not in the archive when their slice closed."
)
