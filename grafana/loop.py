"""The dashboard "The loop": whether the model works well today, and what a person should do."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import steps
from grafana.board import METRIC, MODEL, VERSION, build_dashboard
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
    windows_link,
)
from grafana.steps import SERVING

SELECTOR = 'model="$model", version=~"$version"'
METRIC_SELECTOR = f'{SELECTOR}, metric="$metric"'
COLUMN_STATES = {0: ("no drift", GREEN), 1: ("drifted", RED)}


def dashboard() -> Dashboard:
    """Build the dashboard to look at first."""
    return build_dashboard(
        "loop",
        "driftloop: the loop",
        "Does the model work well today, and what should a person do? Columns and windows have a dashboard and pages "
        "of their own: see the links.",
        [MODEL, VERSION, METRIC],
        (
            "Now",
            [
                stat(
                    "Next step",
                    "The most urgent action for a person. Its conditions are in grafana/steps.py, their thresholds in "
                    "the alert rules.",
                    "none",
                    instant_query(steps.next_step(), "next step"),
                    span=12,
                    value_texts=steps.STEP_TEXTS,
                ),
                stat_names(
                    "Version in service",
                    "The version that answers requests. Two versions are shown during a swap, or while predictors "
                    "differ.",
                    instant_query(
                        'sum by (version) (driftloop_predictor_serving_version_info{model="$model"}) > 0', "{{version}}"
                    ),
                    span=4,
                ),
                stat(
                    "Firing alerts",
                    "The number of alerts that fire. Each has a runbook in docs/alerts.md.",
                    "short",
                    instant_query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),
                    span=4,
                ),
                stat(
                    "Latest retrain",
                    "How long ago the latest retrain ended.",
                    "dateTimeFromNow",
                    instant_query(
                        'max(driftloop_trainer_last_retrain_timestamp_seconds{model="$model"}) * 1000', "ended"
                    ),
                    span=4,
                ),
                stat(
                    "Quality by outcomes",
                    "The selected metric of the version in service on its latest outcomes, with its 95 % interval.",
                    "none",
                    instant_query(f"max(driftloop_quality_low{{{METRIC_SELECTOR}}} and {SERVING})", "low"),
                    instant_query(f"max(driftloop_quality{{{METRIC_SELECTOR}}} and {SERVING})", "measured"),
                    instant_query(f"max(driftloop_quality_high{{{METRIC_SELECTOR}}} and {SERVING})", "high"),
                    span=12,
                ).decimals(3),
                stat(
                    "Latest gate",
                    "The selected metric of champion and challenger on the holdout of the latest gate.",
                    "none",
                    instant_query(
                        'max by (role) (driftloop_trainer_gate_metric{model="$model", metric="$metric"})', "{{role}}"
                    ),
                    span=6,
                ).decimals(3),
                stat(
                    "End of the latest window",
                    "The time of the latest prediction of the latest window. In a replay it is long ago although the "
                    "verdict is new.",
                    "dateTimeAsIso",
                    instant_query(f"max(driftloop_drift_window_end_timestamp_seconds{{{SELECTOR}}}) * 1000", "ends"),
                    span=6,
                ),
            ],
        ),
        (
            "Has the data changed?",
            [
                state_timeline(
                    "Drifted columns of the version in service",
                    "Red while a statistic of the column is above its threshold in the latest window. After a swap "
                    "columns are compared with the new version's reference, so a successful retrain turns red into "
                    "green.",
                    range_query(
                        f"max by (column) (driftloop_drift_column_drifted{{{SELECTOR}}} and {SERVING})", "{{column}}"
                    ),
                    value_texts=COLUMN_STATES,
                ),
                time_series(
                    "Window scores and thresholds",
                    "The score of the latest window, alone and together with the two windows before it. Above its "
                    "threshold it is an alarm.",
                    "none",
                    range_query(
                        f"max by (version) (driftloop_drift_window_score{{{SELECTOR}}})", "score, version {{version}}"
                    ),
                    range_query(
                        f"max by (version) (driftloop_drift_window_score_threshold{{{SELECTOR}}})",
                        "threshold, version {{version}}",
                    ),
                    range_query(
                        f"max by (version) (driftloop_drift_multiwindow_score{{{SELECTOR}}})",
                        "three windows, version {{version}}",
                    ),
                    range_query(
                        f"max by (version) (driftloop_drift_multiwindow_score_threshold{{{SELECTOR}}})",
                        "threshold of three windows, version {{version}}",
                    ),
                ).data_links(windows_link()),
                bars(
                    "Windows by verdict",
                    "Verdicts a minute. A verdict is inconclusive if the window has too few rows or no reference to "
                    "compare with.",
                    "cpm",
                    range_query(
                        f"60 * sum by (verdict) (rate(driftloop_drift_windows_total{{{SELECTOR}}}[$__rate_interval]))",
                        "{{verdict}}",
                    ),
                ),
            ],
        ),
        (
            "Are predictions right?",
            [
                time_series(
                    "Quality: by outcomes, estimated, at the gate",
                    "By outcomes: measured in service, with its 95 % interval. Estimated: from the version's own "
                    "probabilities, before outcomes are known. At the gate: measured on the holdout before the version "
                    "was promoted.",
                    "none",
                    range_query(
                        f"max by (version) (driftloop_quality{{{METRIC_SELECTOR}}})", "by outcomes, version {{version}}"
                    ),
                    range_query(
                        f"max by (version) (driftloop_quality_low{{{METRIC_SELECTOR}}})", "low, version {{version}}"
                    ),
                    range_query(
                        f"max by (version) (driftloop_quality_high{{{METRIC_SELECTOR}}})", "high, version {{version}}"
                    ),
                    range_query(
                        f"max by (version) (driftloop_quality_estimate{{{METRIC_SELECTOR}}})",
                        "estimated, version {{version}}",
                    ),
                    range_query(
                        f"max by (version) (driftloop_quality_at_gate{{{METRIC_SELECTOR}}})",
                        "at gate, version {{version}}",
                    ),
                ),
                bars(
                    "Retrains by result",
                    "Retrains that ended in the 15 minutes before each point in time.",
                    "short",
                    range_query("sum by (state) (increase(driftloop_trainer_retrains_total[15m]))", "{{state}}"),
                ),
                time_series(
                    "Rows and events, in and out",
                    "Predicted rows, reported outcomes, published events, and events consumed by drift worker and "
                    "trainer, per second. What is predicted and not consumed is pending: see Pipeline.",
                    "cps",
                    range_query("sum(rate(driftloop_predictor_rows_total[$__rate_interval]))", "rows predicted"),
                    range_query("sum(rate(driftloop_predictor_outcomes_total[$__rate_interval]))", "outcomes reported"),
                    range_query(
                        "sum(rate(driftloop_outbox_relayed_events_total[$__rate_interval]))", "events published"
                    ),
                    range_query(
                        "sum by (topic) (rate(driftloop_consumed_events_total[$__rate_interval]))",
                        "{{topic}} consumed",
                    ),
                    span=24,
                ),
            ],
        ),
    )
