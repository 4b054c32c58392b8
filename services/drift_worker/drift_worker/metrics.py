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
REPORTS = Counter("driftloop_drift_reports_total", "Reports: made, failed, or dropped before their turn.", ["state"])
REPORT_SECONDS = Summary("driftloop_drift_report_seconds", "What a report takes, from its turn to its end.")
QUALITY = Gauge(
    "driftloop_quality",
    "How good a version is by its latest outcomes; unset while unknown.",
    ["model", "version", "figure"],
)
QUALITY_LOW = Gauge("driftloop_quality_low", "Lower end of its interval (95 %).", ["model", "version", "figure"])
QUALITY_HIGH = Gauge("driftloop_quality_high", "Upper end of its interval (95 %).", ["model", "version", "figure"])
QUALITY_MEASURED = Gauge(
    "driftloop_quality_measured",
    "The same as the gate measured it before the version served.",
    ["model", "version", "figure"],
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
