"""The dashboard "Serving": whether requests are answered, how fast, by which version, and whether events get out."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import MODEL, VERSION, build_dashboard
from grafana.panels import (
    bars,
    bucket_query,
    heatmap,
    instant_query,
    range_query,
    stat,
    stat_names,
    time_series,
)

REQUESTS = "driftloop_predictor_requests_total"
DURATION = "driftloop_predictor_request_duration_seconds"
ROWS = 'driftloop_predictor_rows_total{version=~"$version"}'
SERVING = 'driftloop_predictor_serving_version_info{model="$model", version=~"$version"}'
REQUEST_RATE = f"sum(rate({REQUESTS}[$__rate_interval]))"


def quantile(fraction: float, histogram: str, by: str = "le") -> str:
    """Return a query for a quantile of a histogram."""
    return f"histogram_quantile({fraction}, sum by ({by}) (rate({histogram}_bucket[$__rate_interval])))"


def status_ratio(status: str) -> str:
    """Return a query for the fraction of requests with a status that matches; no result without requests."""
    return f'(sum(rate({REQUESTS}{{status=~"{status}"}}[$__rate_interval])) or vector(0)) / ({REQUEST_RATE} > 0)'


def dashboard() -> Dashboard:
    """Build the dashboard of the predictor."""
    return build_dashboard(
        "serving",
        "driftloop: serving",
        "Are requests answered, how fast, by which version, and are their events published?",
        [MODEL, VERSION],
        (
            "Requests",
            [
                stat("Request rate", "Requests per second now.", "reqps", instant_query(REQUEST_RATE, "requests")),
                stat(
                    "Error ratio",
                    "The fraction of requests that are answered with 5xx now. Errors of clients, 4xx, do not count.",
                    "percentunit",
                    instant_query(f"{status_ratio('5..')} or vector(0)", "errors"),
                ),
                stat_names(
                    "Version in service",
                    "The version that answers requests. Two versions are shown during a swap, or while predictors "
                    "differ.",
                    instant_query(
                        'sum by (version) (driftloop_predictor_serving_version_info{model="$model"}) > 0', "{{version}}"
                    ),
                ),
                stat(
                    "Alias' version rejected",
                    "Whether a predictor rejects the version that the alias names; its /models says why.",
                    "none",
                    instant_query("max(driftloop_predictor_alias_version_rejected)", "rejected"),
                    value_texts={0: ("no", "green"), 1: ("rejected", "red")},
                ),
                time_series(
                    "Requests by protocol and status",
                    "Answers per second. 422 is a request that does not fit the signature, 503 one that the client "
                    "must repeat.",
                    "reqps",
                    range_query(
                        f"sum by (protocol, status) (rate({REQUESTS}[$__rate_interval]))", "{{protocol}} {{status}}"
                    ),
                ),
                time_series(
                    "Requests by version",
                    "Answers per second by the version that gave them. During a swap one version replaces the other "
                    "without a gap.",
                    "reqps",
                    range_query(
                        f'sum by (version) (rate({REQUESTS}{{version=~"$version", version!=""}}[$__rate_interval]))',
                        "version {{version}}",
                    ),
                ),
                time_series(
                    "Request duration",
                    "From a request's arrival to its answer, including the event's commit to the outbox. Most requests "
                    "have one row; large ones take longer.",
                    "s",
                    range_query(quantile(0.5, DURATION), "p50"),
                    range_query(quantile(0.9, DURATION), "p90"),
                    range_query(quantile(0.99, DURATION), "p99"),
                ),
                time_series(
                    "Server and client errors",
                    "Fractions of all requests: 5xx are errors of the predictor, 4xx errors of clients.",
                    "percentunit",
                    range_query(status_ratio("5.."), "5xx"),
                    range_query(status_ratio("4.."), "4xx"),
                ),
                heatmap(
                    "Request duration, distribution",
                    "Requests per second by their duration.",
                    "reqps",
                    bucket_query(f"sum by (le) (rate({DURATION}_bucket[$__rate_interval]))"),
                ),
            ],
        ),
        (
            "Batches",
            [
                time_series(
                    "Batch size",
                    "Rows in a batch, and rows in the queue. Requests that arrive while a batch is scored form the "
                    "next batch: batches are large under load and have one request otherwise.",
                    "short",
                    range_query(quantile(0.5, "driftloop_predictor_batch_rows"), "p50"),
                    range_query(quantile(0.99, "driftloop_predictor_batch_rows"), "p99"),
                    range_query("sum(driftloop_predictor_queued_rows)", "queued now"),
                ),
                time_series(
                    "Batch duration",
                    "Scoring a batch and committing its events to the outbox.",
                    "s",
                    range_query(quantile(0.5, "driftloop_predictor_batch_duration_seconds"), "p50"),
                    range_query(quantile(0.99, "driftloop_predictor_batch_duration_seconds"), "p99"),
                ),
                time_series(
                    "Rows by version",
                    "Rows scored per second.",
                    "cps",
                    range_query(f"sum by (version) (rate({ROWS}[$__rate_interval]))", "version {{version}}"),
                ),
                time_series(
                    "Processes by version",
                    "Predictor processes that serve each version.",
                    "short",
                    range_query(f"sum by (version) ({SERVING})", "version {{version}}"),
                ),
                bars(
                    "Swaps and rejected versions",
                    "In the 15 minutes before each point in time.",
                    "short",
                    range_query("sum(increase(driftloop_predictor_model_swaps_total[15m]))", "swaps"),
                    range_query("sum(increase(driftloop_predictor_rejected_versions_total[15m]))", "rejected"),
                    span=24,
                ),
            ],
        ),
        (
            "Outbox",
            [
                time_series(
                    "Pending events",
                    "Events of answered requests that are not published yet. At the limit requests are rejected or "
                    "events dropped, as DRIFTLOOP_OUTBOX__ON_FULL says.",
                    "short",
                    range_query("sum(driftloop_outbox_pending_events)", "pending"),
                    range_query("sum(driftloop_outbox_max_pending_events)", "limit"),
                ),
                time_series(
                    "Age of the oldest pending event",
                    "How long the oldest event in the outbox has been waiting for the broker.",
                    "s",
                    range_query("max(driftloop_outbox_oldest_event_age_seconds)", "oldest"),
                ),
                time_series(
                    "Published events",
                    "Events that the relay publishes per second.",
                    "cps",
                    range_query("sum(rate(driftloop_outbox_relayed_events_total[$__rate_interval]))", "published"),
                ),
                bars(
                    "Dropped events and relay restarts",
                    "In the 15 minutes before each point in time. Dropped events are lost.",
                    "short",
                    range_query("sum(increase(driftloop_outbox_dropped_events_total[15m]))", "dropped"),
                    range_query("sum(increase(driftloop_outbox_relay_restarts_total[15m]))", "relay restarts"),
                ),
            ],
        ),
    )
