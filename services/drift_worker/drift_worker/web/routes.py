"""The routes of the drift worker's pages: overview, windows, reports. The pages load nothing from another host."""

from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.middleware.gzip import GZipMiddleware

from drift_worker.web.report import ReportKey
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.templating import VersionedStaticFiles, create_templates
from drift_worker.web.verdict_cache import VerdictCache
from drift_worker.web.version_status import version_statuses
from drift_worker.web.views import column_charts, load_profile, rank_findings, version_section
from driftloop.drift.profile_summary import column_sensitivities
from driftloop.errors import StorageUnavailable
from driftloop.privacy import ALL_KEPT, FeaturePolicy
from driftloop.storage.object_store import ObjectStore

MAX_VERSIONS = 4  # shown in full on the overview; of the others only the status
FIRST_FINDINGS = 20  # shown on a window's page before the reader asks for more
STALE_AFTER_SECONDS = 30.0  # the topic answers every second
REFRESH_SECONDS = 3
RETRY_AFTER_SECONDS = 30  # a request to an unavailable store takes as long
MIN_GZIP_BYTES = 1_000
GZIP_LEVEL = 6  # plotly.min.js takes 0.2 s, once per browser; level 9 saves 0.3 % more

# A report contains values that anybody may have sent, so its scripts run in a sandbox without an origin.
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

templates = create_templates()
router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


class PageData(NamedTuple):
    """Where the pages read from, and the queue that renders reports."""

    cache: VerdictCache
    report_queue: ReportQueue
    store: ObjectStore
    mlflow_url: str | None
    policy: FeaturePolicy = ALL_KEPT
    """How features of events are treated: columns of references that are treated otherwise are not shown."""


def page_data(request: Request) -> PageData:
    """Return the data of the app that serves a request."""
    data: PageData = request.app.state.page_data
    return data


Data = Annotated[PageData, Depends(page_data)]


def mount(
    app: FastAPI,
    cache: VerdictCache,
    report_queue: ReportQueue,
    store: ObjectStore,
    mlflow_url: str | None = None,
    policy: FeaturePolicy = ALL_KEPT,
) -> None:
    """Add the pages and static files to an app, and compress its responses. Without a URL no page links to MLflow."""
    app.state.page_data = PageData(cache, report_queue, store, mlflow_url, policy)
    app.include_router(router)
    app.mount("/static", VersionedStaticFiles())
    app.add_middleware(GZipMiddleware, minimum_size=MIN_GZIP_BYTES, compresslevel=GZIP_LEVEL)
    app.add_exception_handler(StorageUnavailable, storage_unavailable)


@router.get("/")
def overview(request: Request, data: Data, model: str | None = None, version: str | None = None) -> Response:
    """Show the status of all versions, and the most important ones in full, or those of a model or with a version.

    The page of one version of one model also shows what the version can see.
    """
    statuses = version_statuses(data.cache)
    selected = [s for s in statuses if model in (None, s.model) and version in (None, s.version)]
    if statuses and not selected:
        return not_found(request, f"verdict on version {version} of model {model}")
    in_full = [status for status in selected if status.windows][:MAX_VERSIONS]
    is_one_version = bool(selected) and None not in (model, version)
    # Only here: the overview does not wait for the store.
    profile, no_profile_reason = load_profile(data.store, selected[0], data.policy) if is_one_version else (None, "")
    return render(
        request,
        "overview.html",
        lines=selected,
        sections=[version_section(data.cache, status) for status in in_full],
        is_filtered=len(selected) < len(statuses),
        is_one_version=is_one_version,
        profile=profile,
        sensitivities=column_sensitivities(profile) if profile else [],
        no_profile_reason=no_profile_reason,
    )


# Names can contain slashes, so a model and its version are one part of a path: model/version.
@router.get("/windows/{name}/{model_version:path}")
def window(request: Request, data: Data, name: str, model_version: str) -> Response:
    """Show the verdict on a window, with its findings and its columns compared with the reference."""
    verdict = data.cache.find(name, model_version)
    if verdict is None:
        return not_found(request, f"window {name} of {model_version}")
    columns, no_charts_reason = column_charts(data.store, verdict, data.policy)
    previous_window, next_window = data.cache.neighbours(verdict)
    return render(
        request,
        "window.html",
        verdict=verdict,
        replayed=data.cache.replayed(verdict),
        findings=rank_findings(verdict),
        first_findings=FIRST_FINDINGS,
        columns=columns,
        no_charts_reason=no_charts_reason,
        previous_window=previous_window,
        next_window=next_window,
        model_version=model_version,
    )


STATUS_CODES = {"failed": 500, "not_archived": 410}
"""Of the page of a report that cannot be shown."""


@router.get("/reports/{model_version:path}/{name}")
def report(request: Request, data: Data, model_version: str, name: str) -> Response:
    """Show evidently's report of a window; request it if the store does not have it."""
    verdict = data.cache.find(name, model_version)
    path = f"reports/{model_version}/{name}.html" if verdict is None else ReportKey.for_verdict(verdict).path
    if verdict is not None or is_plain(path):
        try:
            return HTMLResponse(data.store.read(path), headers={"Content-Security-Policy": REPORT_POLICY})
        except FileNotFoundError:
            pass
    if verdict is None:
        return not_found(request, f"report on window {name} of {model_version}")
    key = ReportKey.for_verdict(verdict)
    if data.report_queue.status(key).name == "not_requested":
        data.report_queue.enqueue(key)
    status = data.report_queue.status(key)
    return render(
        request,
        "report.html",
        status_code=STATUS_CODES.get(status.name, 202),
        name=name,
        model_version=model_version,
        status=status,
        refresh_seconds=REFRESH_SECONDS,
    )


@router.post("/reports/{model_version:path}/{name}")
def retry_report(request: Request, data: Data, model_version: str, name: str) -> Response:
    """Request a report again that has failed."""
    verdict = data.cache.find(name, model_version)
    if verdict is None:
        return not_found(request, f"window {name} of {model_version}")
    data.report_queue.enqueue(ReportKey.for_verdict(verdict))
    return Response(status_code=303, headers={"Location": quote(f"/reports/{model_version}/{name}")})


def render(request: Request, template: str, status_code: int = 200, **context: Any) -> Response:
    """Return a page; it says so if the topic of verdicts has not answered for a while."""
    age_seconds = page_data(request).cache.age_seconds
    context["mlflow_url"] = page_data(request).mlflow_url
    context["stale_seconds"] = age_seconds if age_seconds > STALE_AFTER_SECONDS else None
    # Not no-referrer: with it, a browser would withhold the page's origin from its own requests, too (driftloop.asgi).
    headers = {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "same-origin"}
    return templates.TemplateResponse(request, template, context, status_code=status_code, headers=headers)


def not_found(request: Request, what: str) -> Response:
    """Return the page for a verdict or report that is not among the cached ones."""
    max_events = page_data(request).cache.max_events
    return render(request, "not_found.html", status_code=404, what=what, max_events=max_events)


def storage_unavailable(request: Request, error: Exception) -> Response:
    """Return the page for an unavailable store."""
    response = render(request, "storage_unavailable.html", status_code=503, error=str(error))
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def is_plain(path: str) -> bool:
    """Return whether a path stays in the store, which can be a folder of a file system."""
    return not any(part in ("", ".", "..") for part in path.split("/"))
