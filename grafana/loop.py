"""The loop: whether the model is right, today, and what a person should do."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import steps
from grafana.board import METRIC, MODEL, VERSION, board
from grafana.panels import GREEN, RED, chart, counts, latest, names, number, series, timeline, to_windows
from grafana.steps import SERVING

OF = 'model="$model", version=~"$version"'
SHOWN_COLUMNS = {0: ("as usual", GREEN), 1: ("drifted", RED)}


def dashboard() -> Dashboard:
    """The dashboard to begin with."""
    return board(
        "loop",
        "driftloop: the loop",
        "Is the model right, today, and what should a person do? Columns and windows have dashboards and pages of "
        "their own: see the links.",
        [MODEL, VERSION, METRIC],
        (
            "Now",
            [
                number(
                    "Next step",
                    "The most urgent of what a person should do. Its conditions stand in grafana/steps.py, their "
                    "limits in the alerts.",
                    "none",
                    latest(steps.next_step(), "next step"),
                    span=12,
                    shown=steps.SHOWN,
                ),
                names(
                    "In service",
                    "The version that answers; two while a swap goes on, or where predictors differ.",
                    latest(
                        'sum by (version) (driftloop_predictor_serving_version_info{model="$model"}) > 0', "{{version}}"
                    ),
                    span=4,
                ),
                number(
                    "Alerts",
                    "Alerts that fire. Each has a runbook in docs/alerts.md.",
                    "short",
                    latest('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),
                    span=4,
                ),
                number(
                    "Latest retrain",
                    "When the latest retrain ended.",
                    "dateTimeFromNow",
                    latest('max(driftloop_trainer_last_retrain_timestamp_seconds{model="$model"}) * 1000', "ended"),
                    span=4,
                ),
                number(
                    "Quality, real",
                    "The version in service by its latest outcomes, with its interval of 95 %.",
                    "none",
                    latest(f'max(driftloop_quality_low{{{OF}, metric="$metric"}} and {SERVING})', "low"),
                    latest(f'max(driftloop_quality{{{OF}, metric="$metric"}} and {SERVING})', "real"),
                    latest(f'max(driftloop_quality_high{{{OF}, metric="$metric"}} and {SERVING})', "high"),
                    span=12,
                ).decimals(3),
                number(
                    "Latest gate",
                    "What the latest gate measured on rows that neither version had seen.",
                    "none",
                    latest(
                        'max by (role) (driftloop_trainer_gate_metric{model="$model", metric="$metric"})', "{{role}}"
                    ),
                    span=6,
                ).decimals(3),
                number(
                    "Latest window, in its own time",
                    "When the latest predictions of the latest window were made. In a replay this is long ago, though "
                    "the verdict is of now.",
                    "dateTimeAsIso",
                    latest(f"max(driftloop_drift_window_end_timestamp_seconds{{{OF}}}) * 1000", "ends"),
                    span=6,
                ),
            ],
        ),
        (
            "Has the world changed?",
            [
                timeline(
                    "Drifted columns of the version in service",
                    "Red while a column's latest window has a statistic above its threshold. After a swap they are "
                    "compared with what the new version has learned, so that a good retrain turns red into green.",
                    series(f"max by (column) (driftloop_drift_column_drifted{{{OF}}} and {SERVING})", "{{column}}"),
                    shown=SHOWN_COLUMNS,
                ),
                chart(
                    "Windows: score against limit",
                    "How unusual the latest window is, alone and with the two before it. Above its limit it alarms.",
                    "none",
                    series(f"max by (version) (driftloop_drift_window_score{{{OF}}})", "score, version {{version}}"),
                    series(
                        f"max by (version) (driftloop_drift_window_score_threshold{{{OF}}})",
                        "limit, version {{version}}",
                    ),
                    series(
                        f"max by (version) (driftloop_drift_multiwindow_score{{{OF}}})", "of three, version {{version}}"
                    ),
                    series(
                        f"max by (version) (driftloop_drift_multiwindow_score_threshold{{{OF}}})",
                        "limit of three, version {{version}}",
                    ),
                ).data_links(to_windows()),
                counts(
                    "Windows by verdict",
                    "Verdicts a minute. Unjudged ones had too few rows, or no reference to compare with.",
                    "cpm",
                    series(
                        f"60 * sum by (verdict) (rate(driftloop_drift_windows_total{{{OF}}}[$__rate_interval]))",
                        "{{verdict}}",
                    ),
                ),
            ],
        ),
        (
            "Is it right?",
            [
                chart(
                    "Quality: real, promised, measured",
                    "Real is by outcomes, with its interval; estimated is what the version's own probabilities "
                    "promise; measured is what its gate found before it served, which a first version does not have.",
                    "none",
                    series(
                        f'max by (version) (driftloop_quality{{{OF}, metric="$metric"}})', "real, version {{version}}"
                    ),
                    series(
                        f'max by (version) (driftloop_quality_low{{{OF}, metric="$metric"}})',
                        "low, version {{version}}",
                    ),
                    series(
                        f'max by (version) (driftloop_quality_high{{{OF}, metric="$metric"}})',
                        "high, version {{version}}",
                    ),
                    series(
                        f'max by (version) (driftloop_quality_estimate{{{OF}, metric="$metric"}})',
                        "estimated, version {{version}}",
                    ),
                    series(
                        f'max by (version) (driftloop_quality_at_gate{{{OF}, metric="$metric"}})',
                        "measured, version {{version}}",
                    ),
                ),
                counts(
                    "Retrains by how they ended",
                    "Retrains in the quarter of an hour before each moment.",
                    "short",
                    series(
                        "sum by (state) (increase(driftloop_trainer_retrains_total[15m]))",
                        "{{state}}",
                    ),
                ),
                chart(
                    "Rows and events, in and out",
                    "Rows that were answered, outcomes that were reported, events that were published, and events "
                    "that drift worker and trainer have taken. What is answered and not taken waits: see Pipeline.",
                    "cps",
                    series("sum(rate(driftloop_predictor_rows_total[$__rate_interval]))", "rows answered"),
                    series("sum(rate(driftloop_predictor_outcomes_total[$__rate_interval]))", "outcomes reported"),
                    series("sum(rate(driftloop_outbox_relayed_events_total[$__rate_interval]))", "events published"),
                    series(
                        "sum by (topic) (rate(driftloop_consumed_events_total[$__rate_interval]))", "{{topic}} taken"
                    ),
                    span=24,
                ),
            ],
        ),
    )
