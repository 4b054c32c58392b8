"""Pipeline: whether everything runs, keeps up, and what it takes."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import MODEL, board
from grafana.panels import GREEN, RED, chart, counts, latest, names, number, series, timeline
from grafana.serving import quantile

JOBS = 'job=~"predictor|drift_worker|trainer"'


def mean(summary: str, by: str) -> str:
    """The mean of all since the start: of what happens too seldom for a rate."""
    return f"sum by ({by}) ({summary}_sum) / (sum by ({by}) ({summary}_count) > 0)"


def none(label: str) -> str:
    """Behind a query: 0 of nothing where it has no result, since there was nothing to be counted yet."""
    return f'or on () label_replace(vector(0), "{label}", "none", "", "")'


def dashboard() -> Dashboard:
    """The dashboard for whoever runs it."""
    return board(
        "pipeline",
        "driftloop: pipeline",
        "Does everything run and keep up, and what does it take?",
        [MODEL],
        (
            "Parts",
            [
                timeline(
                    "Up",
                    "Whether Prometheus reaches each part.",
                    series(f"min by (job) (up{{{JOBS}}})", "{{job}}"),
                    shown={0: ("down", RED), 1: ("up", GREEN)},
                    span=12,
                    height=6,
                ),
                names(
                    "Builds",
                    "What runs, of each service.",
                    latest("max by (service, version) (driftloop_build_info)", "{{service}} {{version}}"),
                    span=12,
                ),
                chart(
                    "Processor",
                    "Processors that each service keeps busy, all of its processes together.",
                    "short",
                    series(f"sum by (job) (rate(process_cpu_seconds_total{{{JOBS}}}[$__rate_interval]))", "{{job}}"),
                ),
                chart(
                    "Memory",
                    "Resident memory of each service, all of its processes together.",
                    "bytes",
                    series(f"sum by (job) (process_resident_memory_bytes{{{JOBS}}})", "{{job}}"),
                ),
            ],
        ),
        (
            "Events",
            [
                chart(
                    "Behind, events",
                    "Offsets of each partition that its reader has not handled yet; a transaction has one of its own.",
                    "short",
                    series(
                        "sum by (topic, partition) (driftloop_consumer_lag_events)",
                        "{{topic}}, partition {{partition}}",
                    ),
                ),
                chart(
                    "Behind, time",
                    "How long ago the last handled event was published; 0 while nothing is left to be handled.",
                    "s",
                    series(
                        "max by (topic, partition) (driftloop_consumer_lag_seconds)",
                        "{{topic}}, partition {{partition}}",
                    ),
                ),
                chart(
                    "Events taken",
                    "Events handed to each service, a second.",
                    "cps",
                    series(
                        "sum by (job, topic) (rate(driftloop_consumed_events_total[$__rate_interval]))",
                        "{{job}}, {{topic}}",
                    ),
                ),
                number(
                    "Dead letters",
                    "Messages that could not be read and lie on the dead-letter topic, since the readers started.",
                    "short",
                    latest("sum by (topic) (driftloop_dead_letter_messages_total)", "{{topic}}"),
                    span=6,
                ),
                number(
                    "Outcomes without a prediction",
                    "Outcomes whose prediction was not in the archive when their slice closed, since the workers "
                    "started.",
                    "short",
                    latest("sum(driftloop_outcomes_unmatched_total)", "outcomes"),
                    span=6,
                ),
            ],
        ),
        (
            "Drift worker",
            [
                chart(
                    "Archive",
                    "Writing a slice to the archive.",
                    "s",
                    series(quantile(0.5, "driftloop_archive_write_seconds"), "p50"),
                    series(quantile(0.99, "driftloop_archive_write_seconds"), "p99"),
                ),
                chart(
                    "From a window's last event to its verdict",
                    "The mean of the windows before each moment.",
                    "s",
                    series(
                        "sum(rate(driftloop_drift_verdict_latency_seconds_sum[$__rate_interval])) "
                        "/ (sum(rate(driftloop_drift_verdict_latency_seconds_count[$__rate_interval])) > 0)",
                        "verdict",
                    ),
                ),
                number(
                    "Reports",
                    "evidently's reports: made, failed, or dropped before their turn, since the workers started.",
                    "short",
                    latest(f"sum by (state) (driftloop_drift_reports_total) {none('state')}", "{{state}}"),
                    span=12,
                ),
                number(
                    "A report takes",
                    "The mean since the workers started.",
                    "s",
                    latest(
                        "sum(driftloop_drift_report_duration_seconds_sum) / (sum(driftloop_drift_report_duration_seconds_count) > 0) "
                        "or vector(0)",
                        "mean",
                    ),
                    span=12,
                ),
            ],
        ),
        (
            "Trainer",
            [
                number(
                    "Phases of a training",
                    "The mean of each since the trainer started.",
                    "s",
                    latest(mean("driftloop_trainer_phase_duration_seconds", "phase"), "{{phase}}"),
                    span=24,
                ),
                counts(
                    "Time in each phase",
                    "Seconds of training in the quarter of an hour before each moment.",
                    "s",
                    series("sum by (phase) (increase(driftloop_trainer_phase_duration_seconds_sum[15m]))", "{{phase}}"),
                ),
                number(
                    "Retrains",
                    "By how they ended, since the trainer started.",
                    "short",
                    latest("sum by (state) (driftloop_trainer_retrains_total)", "{{state}}"),
                    span=6,
                ),
                number(
                    "Rows of the latest dataset",
                    "Labelled rows that the latest training had.",
                    "short",
                    latest('max(driftloop_trainer_dataset_rows{model="$model"})', "rows"),
                ),
                number(
                    "Days that lack outcomes",
                    "Days of outcomes that are missing before a retrain, for which there is a reason, can help.",
                    "short",
                    latest('max(driftloop_trainer_policy_missing_outcome_days{model="$model"}) or vector(0)', "days"),
                    span=12,
                ),
                number(
                    "Policy's decisions",
                    "What the policy said of a retrain by itself, since the trainer started; 0 where it is switched "
                    "off.",
                    "short",
                    latest(
                        'sum by (decision) (driftloop_trainer_policy_decisions_total{model="$model"}) '
                        f"{none('decision')}",
                        "{{decision}}",
                    ),
                    span=12,
                ),
            ],
        ),
    )
