"""The dashboard "Pipeline": whether every service runs and keeps up, and the resources it uses."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import MODEL, build_dashboard
from grafana.panels import (
    GREEN,
    RED,
    bars,
    instant_query,
    range_query,
    stat,
    stat_names,
    state_timeline,
    time_series,
)
from grafana.serving import quantile

JOBS = 'job=~"predictor|drift_worker|trainer"'
REPORT_DURATION = "driftloop_drift_report_duration_seconds"
VERDICT_LATENCY = "driftloop_drift_verdict_latency_seconds"


def mean_since_start(summary: str, by: str) -> str:
    """Return a query for the mean of all observations, for events that are too rare for a rate."""
    return f"sum by ({by}) ({summary}_sum) / (sum by ({by}) ({summary}_count) > 0)"


def or_zero(label: str) -> str:
    """Return the end of a query that gives 0, with ``label`` set to none, while nothing has been counted yet."""
    return f'or on () label_replace(vector(0), "{label}", "none", "", "")'


def dashboard() -> Dashboard:
    """Build the dashboard for whoever operates the services."""
    return build_dashboard(
        "pipeline",
        "driftloop: pipeline",
        "Does every service run and keep up, and which resources does it use?",
        [MODEL],
        (
            "Services",
            [
                state_timeline(
                    "Services up",
                    "Whether Prometheus can scrape each service.",
                    range_query(f"min by (job) (up{{{JOBS}}})", "{{job}}"),
                    value_texts={0: ("down", RED), 1: ("up", GREEN)},
                    span=12,
                    height=6,
                ),
                stat_names(
                    "Builds",
                    "The version of each service that runs.",
                    instant_query("max by (service, version) (driftloop_build_info)", "{{service}} {{version}}"),
                    span=12,
                ),
                time_series(
                    "CPU",
                    "CPU cores that each service uses, all of its processes together.",
                    "short",
                    range_query(
                        f"sum by (job) (rate(process_cpu_seconds_total{{{JOBS}}}[$__rate_interval]))", "{{job}}"
                    ),
                ),
                time_series(
                    "Memory",
                    "Resident memory of each service, all of its processes together.",
                    "bytes",
                    range_query(f"sum by (job) (process_resident_memory_bytes{{{JOBS}}})", "{{job}}"),
                ),
            ],
        ),
        (
            "Events",
            [
                time_series(
                    "Consumer lag, events",
                    "Offsets of each partition that its consumer has not handled yet; each transaction adds one.",
                    "short",
                    range_query(
                        "sum by (topic, partition) (driftloop_consumer_lag_events)",
                        "{{topic}}, partition {{partition}}",
                    ),
                ),
                time_series(
                    "Consumer lag, time",
                    "How long ago the last handled event was published; 0 when everything has been handled.",
                    "s",
                    range_query(
                        "max by (topic, partition) (driftloop_consumer_lag_seconds)",
                        "{{topic}}, partition {{partition}}",
                    ),
                ),
                time_series(
                    "Consumed events",
                    "Events that each service consumes per second.",
                    "cps",
                    range_query(
                        "sum by (job, topic) (rate(driftloop_consumed_events_total[$__rate_interval]))",
                        "{{job}}, {{topic}}",
                    ),
                ),
                stat(
                    "Dead letters",
                    "Invalid messages that were moved to the dead-letter topic since the consumers started.",
                    "short",
                    instant_query("sum by (topic) (driftloop_dead_letter_messages_total)", "{{topic}}"),
                    span=6,
                ),
                stat(
                    "Outcomes without a prediction",
                    "Outcomes whose prediction was not in the archive when their slice was closed, since the drift "
                    "workers started.",
                    "short",
                    instant_query("sum(driftloop_outcomes_unmatched_total)", "outcomes"),
                    span=6,
                ),
            ],
        ),
        (
            "Drift worker",
            [
                time_series(
                    "Archive writes",
                    "How long it takes to write a slice to the archive.",
                    "s",
                    range_query(quantile(0.5, "driftloop_archive_write_seconds"), "p50"),
                    range_query(quantile(0.99, "driftloop_archive_write_seconds"), "p99"),
                ),
                time_series(
                    "Verdict latency",
                    "From a window's last event to its verdict: the mean of the windows before each point in time.",
                    "s",
                    range_query(
                        f"sum(rate({VERDICT_LATENCY}_sum[$__rate_interval])) "
                        f"/ (sum(rate({VERDICT_LATENCY}_count[$__rate_interval])) > 0)",
                        "verdict",
                    ),
                ),
                stat(
                    "Reports by result",
                    "evidently's reports that were rendered, failed, or dropped from a full queue, since the drift "
                    "workers started.",
                    "short",
                    instant_query(f"sum by (state) (driftloop_drift_reports_total) {or_zero('state')}", "{{state}}"),
                    span=12,
                ),
                stat(
                    "Report duration",
                    "The mean duration of a report since the drift workers started.",
                    "s",
                    instant_query(
                        f"sum({REPORT_DURATION}_sum) / (sum({REPORT_DURATION}_count) > 0) or vector(0)", "mean"
                    ),
                    span=12,
                ),
            ],
        ),
        (
            "Trainer",
            [
                stat(
                    "Duration of retrain phases",
                    "The mean duration of each phase since the trainer started.",
                    "s",
                    instant_query(mean_since_start("driftloop_trainer_phase_duration_seconds", "phase"), "{{phase}}"),
                    span=24,
                ),
                bars(
                    "Time in each phase",
                    "Seconds spent in each phase in the 15 minutes before each point in time.",
                    "s",
                    range_query(
                        "sum by (phase) (increase(driftloop_trainer_phase_duration_seconds_sum[15m]))", "{{phase}}"
                    ),
                ),
                stat(
                    "Retrains by result, total",
                    "Retrains by result since the trainer started.",
                    "short",
                    instant_query("sum by (state) (driftloop_trainer_retrains_total)", "{{state}}"),
                    span=6,
                ),
                stat(
                    "Rows of the latest dataset",
                    "Labelled rows in the dataset of the latest retrain.",
                    "short",
                    instant_query('max(driftloop_trainer_dataset_rows{model="$model"})', "rows"),
                ),
                stat(
                    "Missing outcome days",
                    "Days of outcomes that are missing before a retrain, for which the policy has a reason, can help.",
                    "short",
                    instant_query(
                        'max(driftloop_trainer_policy_missing_outcome_days{model="$model"}) or vector(0)', "days"
                    ),
                    span=12,
                ),
                stat(
                    "Policy decisions",
                    "The policy's decisions about a retrain since the trainer started; 0 while the policy is off.",
                    "short",
                    instant_query(
                        'sum by (decision) (driftloop_trainer_policy_decisions_total{model="$model"}) '
                        f"{or_zero('decision')}",
                        "{{decision}}",
                    ),
                    span=12,
                ),
            ],
        ),
    )
