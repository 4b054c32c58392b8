"""The drift worker's pages: what was judged, why, and what it looked like. Nothing is loaded from another host."""

import gzip
import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version as version_of
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from drift_worker.web import charts
from drift_worker.web.charts import PlotlyFigure, max_ratio_by_column, threshold_ratio
from drift_worker.web.report import ReportKey, WindowNotArchived, load_rows
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.verdict_cache import VerdictCache
from driftloop.errors import StorageUnavailable
from driftloop.events import DataQualityIssue, DriftVerdict, QualityEstimate, QualityVerdict
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import ReferenceUnavailable

WINDOWS = 60  # of a version: as many as can be told apart on a phone
VERSIONS = 4  # that are shown in full; older ones have a link
RECENT = 10  # judged windows over which columns are ranked
COLUMNS = 30  # that are drawn: a picture each
FIRST_ROWS = 20  # of findings that are shown before one asks for more
STALE_AFTER_SECONDS = 30.0  # the topic answers each second
REFRESH_SECONDS = 3
RETRY_SECONDS = 30  # as long as it took to find out that the bucket is away

# A report holds values that anybody may have sent: what it runs, it runs as a page of no host.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
FACTS: dict[str, str] = {
    "out_of_range": "of the values lie outside of the reference's range: a change of units?",
    "unseen_levels": "of the values are levels that the reference does not have",
    "constant": "of the values are the same one: a sensor that hangs?",
    "all_missing": "of the values are missing",
    "type_mismatch": "of the values are no numbers, and count as missing",
}


QUALITY: dict[str, str] = {
    "roc_auc": "ROC AUC",
    "rmse": "RMSE",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
}
PRIMARY = ("roc_auc", "rmse")  # what is drawn, where there is one of them


class Ranked(NamedTuple):
    """A column as the overview ranks it, over a version's latest judged windows."""

    column: str
    weight: float
    """The mean of its largest weight in each."""
    drifted: int
    """In how many of them it did."""
    largest: float | None
    """How unusual it was at most, in thresholds."""


class Section(NamedTuple):
    """A version on the overview."""

    model: str
    version: str
    verdicts: list[DriftVerdict]
    """The oldest first."""
    again: list[DriftVerdict | None]
    """What each of them got when it was judged once more."""
    counts: Counter[str]
    recent: int
    ranked: list[Ranked]
    quality: QualityVerdict | None
    """The latest that could be measured."""
    estimate: QualityEstimate | None
    figures: dict[str, PlotlyFigure]


class Picture(NamedTuple):
    """A column beside the reference."""

    column: str
    drifted: bool
    missing: tuple[float, float]
    """Its share of missing values, in the reference and in the window."""
    figure: PlotlyFigure


def mount(app: FastAPI, verdicts: VerdictCache, reporting: ReportQueue, bucket: Bucket) -> None:
    """The overview, a page for each verdict, and the reports."""
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)

    def page(template: str, status: int = 200, **values: Any) -> Response:
        silent = verdicts.age_seconds
        body = (
            _templates()
            .get_template(template)
            .render(silent=silent if silent > STALE_AFTER_SECONDS else None, **values)
        )
        return HTMLResponse(body, status, {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer"})

    def missing(what: str) -> Response:
        return page("missing.html", 404, what=what, most=verdicts.max_events)

    @router.get("/")
    def overview(model: str | None = None, version: str | None = None) -> Response:
        everything = verdicts.versions()
        chosen = [(m, v) for m, v in everything if model in (None, m) and version in (None, v)][:VERSIONS]
        if everything and not chosen:
            return missing(f"verdict on version {version} of model {model}")
        sections = [section(verdicts, *one) for one in chosen]
        return page("overview.html", sections=sections, others=[one for one in everything if one not in chosen])

    # Names may hold slashes: a model and its version are one part of a path here.
    @router.get("/windows/{name}/{of:path}")
    def window(name: str, of: str) -> Response:
        verdict = verdicts.find(name, of)
        if verdict is None:
            return missing(f"window {name} of {of}")
        drawn, undrawn = drawings(bucket, verdict)
        before, after = verdicts.neighbours(verdict)
        return page(
            "window.html",
            verdict=verdict,
            findings=sorted(verdict.findings, key=lambda finding: (not finding.drifted, -finding.priority)),
            pictures=drawn,
            undrawn=undrawn,
            again=verdicts.rejudged(verdict),
            before=before,
            after=after,
            of=of,
        )

    @router.get("/reports/{of:path}/{name}")
    def report(name: str, of: str) -> Response:
        verdict = verdicts.find(name, of)
        path = f"reports/{of}/{name}.html" if verdict is None else ReportKey.for_verdict(verdict).path
        try:
            if verdict is not None or _is_plain(path):
                return HTMLResponse(bucket.read(path), headers={"Content-Security-Policy": REPORT_POLICY})
        except FileNotFoundError:
            pass
        if verdict is None:
            return missing(f"report on window {name} of {of}")
        subject = ReportKey.for_verdict(verdict)
        if reporting.status(subject).name == "unasked":
            reporting.enqueue(subject)
        state = reporting.status(subject)
        return page("report.html", 500 if state.name == "failed" else 202, name=name, of=of, state=state)

    @router.post("/reports/{of:path}/{name}")
    def again(name: str, of: str) -> Response:
        """Tries once more what failed."""
        verdict = verdicts.find(name, of)
        if verdict is None:
            return missing(f"window {name} of {of}")
        reporting.enqueue(ReportKey.for_verdict(verdict))
        return Response(status_code=303, headers={"Location": quote(f"/reports/{of}/{name}")})

    @router.get("/static/{name}")
    def static(name: str, request: Request) -> Response:
        if name not in STATIC:
            return missing(f"file {name}")
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        body = _file(name)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", _packed(name)
        return Response(body, media_type=STATIC[name], headers=headers)

    def away(_: Request, error: Exception) -> Response:
        answer = page("away.html", 503, why=str(error))
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
        return answer

    app.include_router(router)
    app.add_exception_handler(StorageUnavailable, away)


def section(verdicts: VerdictCache, model: str, version: str) -> Section:
    """A version on the overview; there is at least one verdict on it."""
    windows = verdicts.latest(DriftVerdict, model, version, WINDOWS)
    judged = [verdict for verdict in windows if verdict.verdict != "inconclusive"][-RECENT:]
    ranked = rank(judged)
    qualities = [one for one in verdicts.latest(QualityVerdict, model, version, WINDOWS) if one.in_service is not None]
    estimates = verdicts.latest(QualityEstimate, model, version, WINDOWS)
    figures = {}
    if judged:
        shown = [one.column for one in ranked[:COLUMNS]]
        figures = {"scores": charts.score_chart(windows), "heat": charts.drift_heatmap(windows, shown)}
    if name := next(
        (
            name
            for name in PRIMARY
            if qualities and qualities[-1].in_service and name in qualities[-1].in_service.metrics
        ),
        None,
    ):
        figures["quality"] = charts.quality_chart(name, QUALITY[name], qualities, estimates)
    return Section(
        model=model,
        version=version,
        verdicts=windows,
        again=[verdicts.rejudged(verdict) for verdict in windows],
        counts=Counter[str](verdict.verdict for verdict in windows),
        recent=len(judged),
        ranked=ranked,
        quality=qualities[-1] if qualities else None,
        estimate=estimates[-1] if estimates else None,
        figures=figures,
    )


def rank(judged: Sequence[DriftVerdict]) -> list[Ranked]:
    """All columns of these windows, the one to look at first before the others."""
    ranked = []
    for column in sorted({finding.column for verdict in judged for finding in verdict.findings}):
        weights = [max((f.priority for f in verdict.findings if f.column == column), default=0.0) for verdict in judged]
        largest = [threshold_ratio(found[column]) for found in map(max_ratio_by_column, judged) if column in found]
        drifted = sum(column in verdict.drifted_columns for verdict in judged)
        most = max((value for value in largest if value is not None), default=None)
        ranked.append(Ranked(column, sum(weights) / len(judged), drifted, most))
    return sorted(ranked, key=lambda one: one.weight, reverse=True)


def drawings(bucket: Bucket, verdict: DriftVerdict) -> tuple[list[Picture], str]:
    """The window's columns beside the reference, those that matter most first; or why there are none."""
    try:
        known, window = load_rows(bucket, ReportKey.for_verdict(verdict))
    except (ReferenceUnavailable, WindowNotArchived, StorageUnavailable) as error:
        return [], str(error)
    weights = dict.fromkeys(known.profile.column_types, 0.0)
    for finding in verdict.findings:
        weights[finding.column] = max(weights.get(finding.column, 0.0), finding.priority + finding.drifted * 1e6)
    columns = sorted(known.profile.column_types, key=lambda column: weights[column], reverse=True)[:COLUMNS]
    return [
        Picture(
            column,
            column in verdict.drifted_columns,
            (float(known.rows[column].isna().mean()), float(window[column].isna().mean())),
            charts.distribution_chart(
                known.profile.column_types[column],
                known.rows[column],
                window[column],
                column in verdict.drifted_columns,
            ),
        )
        for column in columns
    ], ""


def _is_plain(path: str) -> bool:
    """Whether a report of a forgotten verdict may lie there: a bucket may be a folder, whose parents are not ours."""
    return not any(part in ("", ".", "..") for part in path.split("/"))


STATIC = {"pages.css": "text/css", "charts.js": "text/javascript", "plotly.js": "text/javascript"}


@cache
def _file(name: str) -> bytes:
    if name == "plotly.js":
        from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # noqa: PLC0415  # a second

        return str(get_plotlyjs()).encode()
    return files("drift_worker.web").joinpath("static", name).read_bytes()


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(_file(name), compresslevel=6)


@cache
def _address(name: str) -> str:
    """A static file's address, which changes with what it holds: so it may be kept for ever."""
    mark = version_of("plotly") if name == "plotly.js" else hashlib.sha256(_file(name)).hexdigest()[:12]
    return f"/static/{name}?v={mark}"


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("drift_worker.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "digits": _digits,
        "utc": _utc,
        "until": _until,
        "percent": _percent,
        "fact": _fact,
        "quoted": quote,
        "address": lambda verdict: quote(charts.verdict_path(verdict)),
        "unusualness": threshold_ratio,
        "zip": zip,
    }
    templates.globals |= {
        "static": _address,
        "FIRST_ROWS": FIRST_ROWS,
        "QUALITY": QUALITY,
        "REFRESH_SECONDS": REFRESH_SECONDS,
    }
    return templates


def _digits(value: float | None) -> str:
    """As many digits as say something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}"


def _until(verdict: DriftVerdict) -> str:
    """From when to when a window's predictions were made; a day is named once."""
    ends = verdict.last_prediction_at.astimezone(UTC)
    same_day = verdict.first_prediction_at.astimezone(UTC).date() == ends.date()
    return (
        f"{_utc(verdict.first_prediction_at)} – {ends:%H:%M}"
        if same_day
        else f"{_utc(verdict.first_prediction_at)} – {_utc(ends)}"
    )


def _fact(fact: DataQualityIssue) -> str:
    return f"{_percent(fact.fraction)} {FACTS[fact.kind]}"
