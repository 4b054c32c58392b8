"""Serving: whether requests are answered, how fast, by which version, and whether their events get away."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.board import MODEL, VERSION, board
from grafana.panels import buckets, chart, counts, heat, latest, names, number, series

REQUESTS = "driftloop_predictor_requests_total"
SECONDS = "driftloop_predictor_request_duration_seconds"
ROWS = 'driftloop_predictor_rows_total{version=~"$version"}'
SERVING = 'driftloop_predictor_serving_version_info{model="$model", version=~"$version"}'
ASKED = f"sum(rate({REQUESTS}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "le") -> str:
    """A histogram's quantile over the moments before each."""
    return f"histogram_quantile({share}, sum by ({by}) (rate({histogram}_bucket[$__rate_interval])))"


def share(status: str) -> str:
    """Of all requests, those that were answered with such a status; without requests there is none."""
    return f'(sum(rate({REQUESTS}{{status=~"{status}"}}[$__rate_interval])) or vector(0)) / ({ASKED} > 0)'


def dashboard() -> Dashboard:
    """The dashboard for whoever asks whether the predictor answers."""
    return board(
        "serving",
        "driftloop: serving",
        "Are requests answered, how fast, by which version, and do their events get away?",
        [MODEL, VERSION],
        (
            "Requests",
            [
                number("Rate", "Requests a second, now.", "reqps", latest(ASKED, "requests")),
                number(
                    "Errors",
                    "Share of requests that were answered with 5xx, now. What a client did wrong is no error.",
                    "percentunit",
                    latest(f"{share('5..')} or vector(0)", "errors"),
                ),
                names(
                    "In service",
                    "The version that answers; two while a swap goes on, or where predictors differ.",
                    latest(
                        'sum by (version) (driftloop_predictor_serving_version_info{model="$model"}) > 0', "{{version}}"
                    ),
                ),
                number(
                    "Refused",
                    "Whether the alias names a version that a predictor refuses; /models of the predictor says why.",
                    "none",
                    latest("max(driftloop_predictor_alias_version_rejected)", "refused"),
                    shown={0: ("no", "green"), 1: ("refused", "red")},
                ),
                chart(
                    "Requests by protocol and status",
                    "Answers a second. 422 is a request that does not fit the signature, 503 one that must come again.",
                    "reqps",
                    series(
                        f"sum by (protocol, status) (rate({REQUESTS}[$__rate_interval]))", "{{protocol}} {{status}}"
                    ),
                ),
                chart(
                    "Requests by version",
                    "Answers a second by the version that gave them: a swap crosses over and leaves no gap.",
                    "reqps",
                    series(
                        f'sum by (version) (rate({REQUESTS}{{version=~"$version", version!=""}}[$__rate_interval]))',
                        "version {{version}}",
                    ),
                ),
                chart(
                    "Latency",
                    "From a request's arrival to its answer, its event in the outbox. Most requests have one row; a "
                    "large one takes longer.",
                    "s",
                    series(quantile(0.5, SECONDS), "p50"),
                    series(quantile(0.9, SECONDS), "p90"),
                    series(quantile(0.99, SECONDS), "p99"),
                ),
                chart(
                    "Errors and refused requests",
                    "Shares of all requests: 5xx, and 4xx that the client did wrong.",
                    "percentunit",
                    series(share("5.."), "5xx"),
                    series(share("4.."), "4xx"),
                ),
                heat(
                    "Latency, all requests",
                    "Requests a second by how long they took.",
                    "reqps",
                    buckets(f"sum by (le) (rate({SECONDS}_bucket[$__rate_interval]))"),
                ),
            ],
        ),
        (
            "Batches",
            [
                chart(
                    "Rows of a batch",
                    "Requests that come while a batch is being scored make the next one: large under load, 1 without.",
                    "short",
                    series(quantile(0.5, "driftloop_predictor_batch_rows"), "p50"),
                    series(quantile(0.99, "driftloop_predictor_batch_rows"), "p99"),
                    series("sum(driftloop_predictor_queued_rows)", "waiting now"),
                ),
                chart(
                    "Scoring a batch",
                    "Scoring a batch and keeping its events.",
                    "s",
                    series(quantile(0.5, "driftloop_predictor_batch_duration_seconds"), "p50"),
                    series(quantile(0.99, "driftloop_predictor_batch_duration_seconds"), "p99"),
                ),
                chart(
                    "Rows by version",
                    "Rows scored a second.",
                    "cps",
                    series(f"sum by (version) (rate({ROWS}[$__rate_interval]))", "version {{version}}"),
                ),
                chart(
                    "Versions in service",
                    "Processes that answer with each version.",
                    "short",
                    series(f"sum by (version) ({SERVING})", "version {{version}}"),
                ),
                counts(
                    "Swaps and refused versions",
                    "In the quarter of an hour before each moment.",
                    "short",
                    series("sum(increase(driftloop_predictor_model_swaps_total[15m]))", "swaps"),
                    series("sum(increase(driftloop_predictor_rejected_versions_total[15m]))", "refused"),
                    span=24,
                ),
            ],
        ),
        (
            "Outbox",
            [
                chart(
                    "Events that wait for the broker",
                    "Answered requests whose events are not on the topic yet. At the limit requests are refused, or "
                    "events dropped, as is set.",
                    "short",
                    series("sum(driftloop_outbox_pending_events)", "waiting"),
                    series("sum(driftloop_outbox_max_pending_events)", "limit"),
                ),
                chart(
                    "Age of the oldest",
                    "How long the oldest of them has waited.",
                    "s",
                    series("max(driftloop_outbox_oldest_event_age_seconds)", "oldest"),
                ),
                chart(
                    "Published",
                    "Events that the relay has published, a second.",
                    "cps",
                    series("sum(rate(driftloop_outbox_relayed_events_total[$__rate_interval]))", "published"),
                ),
                counts(
                    "Dropped events and relay faults",
                    "In the quarter of an hour before each moment. Dropped events are lost.",
                    "short",
                    series("sum(increase(driftloop_outbox_dropped_events_total[15m]))", "dropped"),
                    series("sum(increase(driftloop_outbox_relay_restarts_total[15m]))", "relay began anew"),
                ),
            ],
        ),
    )
