"""The templates of the pages, their filters, and the URLs of static files."""

import hashlib
import re
from datetime import UTC
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from fastapi.templating import Jinja2Templates
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from drift_worker.web.charts import threshold_ratio, verdict_path
from drift_worker.web.distributions import Statistic
from driftloop.drift.profile_summary import describe_span
from driftloop.evaluation.metric_names import format_metric, metric_label
from driftloop.events import REASON_TEXTS, DataQualityIssue, DriftVerdict, QualityVerdict
from driftloop.times import format_utc

PACKAGES = (("drift_worker.web", "static"), ("plotly", "package_data"))  # the latter has plotly.min.js
CACHE_CONTROL = "public, max-age=31536000, immutable"
BREAK_BEHIND = re.compile(r"(?<=\w)([_.]+)(?=\w)")  # not behind the first character: _prediction stays whole
ISSUE_TEXTS: dict[str, str] = {
    "out_of_range": "of the values are out of the reference's range: a change of units?",
    "unseen_levels": "of the values are levels that the reference does not have",
    "constant": "of the values are equal: a sensor that hangs?",
    "all_missing": "of the values are missing",
    "type_mismatch": "of the values are no numbers and count as missing",
}


class VersionedStaticFiles(StaticFiles):
    """Static files that browsers keep for a year: :func:`static_url` changes when a file changes."""

    def __init__(self) -> None:
        """Serve the files of this package and of plotly."""
        super().__init__(packages=list(PACKAGES))

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file's response with the header that allows to keep it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = CACHE_CONTROL
        return response


@cache
def static_url(name: str) -> str:
    """Return the URL of a static file, with a version that changes with the file's content."""
    for package, folder in PACKAGES:
        file = files(package).joinpath(folder, name)
        if file.is_file():
            return f"/static/{name}?v={hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
    raise FileNotFoundError(f"no static file {name} in {PACKAGES}")


def create_templates() -> Jinja2Templates:
    """Return the pages' templates; a variable that a page does not pass is an error."""
    environment = Environment(
        loader=PackageLoader("drift_worker.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": mark_line_breaks,
        "digits": format_number,
        "fraction": format_fraction,
        "issue": format_issue,
        "metric": metric_label,
        "metric_value": format_metric,
        "quoted": quote,
        "ratio": threshold_ratio,
        "reason": reason_text,
        "span": describe_span,
        "statistic": format_statistic,
        "time_range": format_time_range,
        "utc": format_utc,
        "verdict_url": verdict_url,
        "words": as_words,
        "zip": zip,
    }
    environment.globals |= {"static_url": static_url, "mlflow_version_url": mlflow_version_url}
    return Jinja2Templates(env=environment)


def verdict_url(verdict: DriftVerdict) -> str:
    """Return the URL of a verdict's page."""
    return quote(verdict_path(verdict))


def mlflow_version_url(mlflow_url: str, model: str, version: str) -> str:
    """Return the URL of MLflow's page of a version."""
    return f"{mlflow_url.rstrip('/')}/#/models/{quote(model, safe='')}/versions/{quote(version, safe='')}"


def reason_text(verdict: DriftVerdict | QualityVerdict) -> str:
    """Return in words why a verdict is inconclusive; its explanation if the event is older than the reasons."""
    return REASON_TEXTS[verdict.reason] if verdict.reason else verdict.explanation


def mark_line_breaks(name: str) -> Markup:
    """Return a name as HTML in which a browser may break lines behind underscores and dots, not in words only."""
    return Markup(BREAK_BEHIND.sub(r"\1<wbr>", str(escape(name))))  # noqa: S704  # the name is escaped


def as_words(name: str) -> str:
    """Return a verdict's name for people, such as "no drift" for ``no_drift``."""
    return name.replace("_", " ")


def format_number(value: float | None) -> str:
    """Return a number with three significant digits, and a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_fraction(fraction: float) -> str:
    """Return a fraction as a percentage."""
    return f"{fraction:.0%}" if fraction in (0, 1) else f"{fraction:.1%}"


def format_statistic(statistic: Statistic, value: float | None) -> str:
    """Return a statistic's value in the reference or the window."""
    return format_number(value) if value is None or not statistic.is_fraction else format_fraction(value)


def format_time_range(verdict: DriftVerdict) -> str:
    """Return the times of a window's first and last prediction; the day only once if both are on it."""
    first, last = (time.astimezone(UTC) for time in (verdict.first_prediction_at, verdict.last_prediction_at))
    return f"{format_utc(first)} – {f'{last:%H:%M}' if first.date() == last.date() else format_utc(last)}"


def format_issue(issue: DataQualityIssue) -> str:
    """Return a data quality issue for people."""
    return f"{format_fraction(issue.fraction)} {ISSUE_TEXTS[issue.kind]}"
