"""Every metric of the drift worker."""

from prometheus_client import Counter, Gauge, Histogram, Summary

WINDOWS = Counter(
    "driftloop_drift_windows_total",
    "Windows by drift verdict (no_drift, drift, inconclusive). Many inconclusive ones mean that windows have too few "
    "rows or that the version has no reference.",
    ["model", "version", "verdict"],
)
UNJUDGED_WINDOWS = Counter(
    "driftloop_drift_unjudged_windows_total",
    "Windows with an inconclusive verdict by its reason, such as no_reference or too_few_rows.",
    ["model", "version", "reason"],
)
ROWS = Counter("driftloop_drift_rows_total", "Rows of the windows that have a drift verdict.", ["model", "version"])
ARCHIVED_ROWS = Counter(
    "driftloop_drift_archived_rows_total",
    "Archived rows of predictions, also those of windows that are still open. If it increases for a day and no window "
    "gets a verdict of drift or no_drift, the version is not watched.",
    ["model", "version"],
)
WINDOW_SCORE = Gauge(
    "driftloop_drift_window_score",
    "Score of the version's latest window: its largest standardized statistic. Compare with "
    "driftloop_drift_window_score_threshold.",
    ["model", "version"],
)
WINDOW_SCORE_THRESHOLD = Gauge(
    "driftloop_drift_window_score_threshold",
    "Score above which a single window is an alarm.",
    ["model", "version"],
)
MULTIWINDOW_SCORE = Gauge(
    "driftloop_drift_multiwindow_score",
    "Score of the version's latest windows taken together; no series while there are too few. Compare with "
    "driftloop_drift_multiwindow_score_threshold.",
    ["model", "version"],
)
MULTIWINDOW_SCORE_THRESHOLD = Gauge(
    "driftloop_drift_multiwindow_score_threshold",
    "Score above which several windows taken together are an alarm.",
    ["model", "version"],
)
CUMULATED_SCORE = Gauge(
    "driftloop_drift_cumulated_score",
    "Largest ratio of a sum over the version's windows to its limit; above 1, small changes have added up. No series "
    "for a version without such a calibration.",
    ["model", "version"],
)
WINDOW_END = Gauge(
    "driftloop_drift_window_end_timestamp_seconds",
    "Time of the last prediction in the latest window with a verdict of drift or no_drift; every drift gauge "
    "of the version is about that window.",
    ["model", "version"],
)
WINDOW_ALARM = Gauge(
    "driftloop_drift_window_alarm", "1 while the version's latest window is an alarm, else 0.", ["model", "version"]
)
CONSECUTIVE_ALARMS = Gauge(
    "driftloop_drift_consecutive_alarms",
    "Alarms since the version's latest window without drift. Up to three can follow from one odd day; four are seldom "
    "chance. The cumulated score is an alarm for some windows after a change is over.",
    ["model", "version"],
)
COLUMN_DRIFTED = Gauge(
    "driftloop_drift_column_drifted",
    "1 if a statistic of the column is above its threshold in the latest window, else 0.",
    ["model", "version", "column"],
)
STATISTIC = Gauge(
    "driftloop_drift_statistic",
    "Statistic of a column, over the number of latest windows that the label windows says. Compare with "
    "driftloop_drift_threshold.",
    ["model", "version", "column", "method", "windows"],
)
THRESHOLD = Gauge(
    "driftloop_drift_threshold",
    "Value of a column's statistic above which the column has drifted.",
    ["model", "version", "column", "method", "windows"],
)
VERDICT_LATENCY = Summary(
    "driftloop_drift_verdict_latency_seconds",
    "Time from a slice's last event to the verdicts on the windows that end with it, which includes the time to close "
    "the slice.",
)
ARCHIVE_WRITE_SECONDS = Histogram(
    "driftloop_archive_write_seconds",
    "Duration of writing a slice to the archive. Seconds mean that the object store is slow.",
    buckets=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50],
)
ARCHIVE_FILES = Gauge(
    "driftloop_archive_files",
    "Files of a partition in the archive by kind: slice, a small file of its own, or merged. Slices that keep growing "
    "mean that compaction does not keep up.",
    ["topic", "partition", "kind"],
)
ARCHIVE_BYTES = Gauge(
    "driftloop_archive_bytes",
    "Bytes of a partition in the archive by kind of file: slice or merged.",
    ["topic", "partition", "kind"],
)
MERGED_SLICES = Counter(
    "driftloop_archive_merged_slices_total", "Slices that compaction has merged into larger files.", ["topic"]
)
SAVED_BYTES = Counter(
    "driftloop_archive_saved_bytes_total", "Bytes by which compaction has made the archive smaller.", ["topic"]
)
EXPIRED_FILES = Counter(
    "driftloop_archive_expired_files_total",
    "Files of the archive that were deleted because their day is older than "
    "DRIFTLOOP_ARCHIVE__PREDICTION_RETENTION_DAYS or DRIFTLOOP_ARCHIVE__OUTCOME_RETENTION_DAYS.",
    ["topic"],
)
EXPIRED_BYTES = Counter(
    "driftloop_archive_expired_bytes_total",
    "Bytes of the files that driftloop_archive_expired_files_total counts.",
    ["topic"],
)
REPORTS = Counter(
    "driftloop_drift_reports_total",
    "evidently's reports on windows by result: rendered, failed, or dropped from a full queue.",
    ["state"],
)
REPORT_DURATION = Histogram(
    "driftloop_drift_report_duration_seconds",
    "Duration of rendering a report, without its time in the queue.",
    buckets=[1, 2, 5, 10, 20, 50, 100, 200, 500],
)
QUALITY = Gauge(
    "driftloop_quality",
    "Metric of a version in service, measured on its latest outcomes; no series while there are too few.",
    ["model", "version", "metric"],
)
QUALITY_LOW = Gauge(
    "driftloop_quality_low",
    "Lower bound of the 95 % interval of driftloop_quality.",
    ["model", "version", "metric"],
)
QUALITY_HIGH = Gauge(
    "driftloop_quality_high",
    "Upper bound of the 95 % interval of driftloop_quality.",
    ["model", "version", "metric"],
)
QUALITY_END = Gauge(
    "driftloop_quality_end_timestamp_seconds",
    "Time of the last prediction that driftloop_quality is measured on.",
    ["model", "version"],
)
QUALITY_AT_GATE = Gauge(
    "driftloop_quality_at_gate",
    "Metric of a version, measured by the gate on the holdout before the version was promoted. Compare with "
    "driftloop_quality.",
    ["model", "version", "metric"],
)
QUALITY_AT_GATE_LOW = Gauge(
    "driftloop_quality_at_gate_low",
    "Lower bound of the 95 % interval of driftloop_quality_at_gate.",
    ["model", "version", "metric"],
)
QUALITY_AT_GATE_HIGH = Gauge(
    "driftloop_quality_at_gate_high",
    "Upper bound of the 95 % interval of driftloop_quality_at_gate.",
    ["model", "version", "metric"],
)
QUALITY_ESTIMATE = Gauge(
    "driftloop_quality_estimate",
    "Metric of the latest window as estimated from predicted probabilities (CBPE), before outcomes are known. "
    "Read it together with driftloop_quality_estimate_bias.",
    ["model", "version", "metric"],
)
QUALITY_ESTIMATE_BIAS = Gauge(
    "driftloop_quality_estimate_bias",
    "Mean of estimate minus measured metric, over windows whose outcomes are known by now; above 0, estimates are too "
    "high.",
    ["model", "version", "metric"],
)
UNMATCHED_OUTCOMES = Counter(
    "driftloop_outcomes_unmatched_total",
    "Outcomes whose prediction was not in the archive when their slice was closed. Worrying if it grows as fast as "
    "outcomes are reported: their ids are wrong.",
)
