"""An explanation as lines of text: pairs of a label and what it says."""

from collections.abc import Iterator, Sequence

from driftloop.registry.model_registry import parse_description
from driftloop.storage.dvc import DatasetVersionNotFound, parse_pointer
from driftloop_cli.explain import ExplainedRow, Explanation, ReportedOutcome

MAX_ROWS = 20
Lines = Iterator[tuple[str, str]]
"""Pairs of a label and a text."""


def explanation_lines(explanation: Explanation) -> Lines:
    """Yield what is known about a prediction; of a request with many rows only the first ones."""
    time = f"{explanation.time:%Y-%m-%d %H:%M:%S}"
    yield "predicted", f"{time} by version {explanation.version} of {explanation.model}"
    if explanation.trace_id is not None:
        yield "trace", explanation.trace_id
    for row in explanation.rows[:MAX_ROWS]:
        yield from _row_lines(row)
    if len(explanation.rows) > MAX_ROWS:
        yield "", f"{len(explanation.rows) - MAX_ROWS} more rows: choose one with --row"
    yield from _window_lines(explanation)
    yield from _version_lines(explanation)
    is_missing = "" if explanation.reference_is_complete else "missing or incomplete: "
    yield "  reference", f"{is_missing}{explanation.reference}"


def _row_lines(row: ExplainedRow) -> Lines:
    features = ", ".join(f"{name}={'–' if cell is None else cell}" for name, cell in row.features.items())
    yield f"row {row.row}", features
    if row.key is not None:
        yield "  key", row.key
    yield "  prediction", str(row.prediction)
    yield "  outcome", _outcomes_text(row.outcomes)


def _outcomes_text(outcomes: Sequence[ReportedOutcome]) -> str:
    """Return the outcomes of one row in words; the last one counts."""
    reports = [
        f"{report.outcome:g}, known at {report.time:%Y-%m-%d %H:%M}"
        if isinstance(report.outcome, float)
        else f"{report.outcome}, known at {report.time:%Y-%m-%d %H:%M}"
        for report in outcomes
    ]
    if not reports:
        return "not reported yet"
    *earlier, last = reports
    return last + (f" (corrected: before it was {'; '.join(earlier)})" if earlier else "")


def _window_lines(explanation: Explanation) -> Lines:
    verdict = explanation.verdict
    if explanation.archive is None:
        yield "window", "not judged yet: its window is still open"
        return
    if verdict is None:
        yield "slice", explanation.archive
        yield "verdict", "not among the verdicts that were read from the topic: its window may still be open"
        return
    yield "window", f"{verdict.window.name} ({explanation.archive})"
    yield "verdict", f"{verdict.verdict}, on {verdict.rows} rows of version {verdict.version}: {verdict.explanation}"
    if explanation.report is not None:
        yield "report", explanation.report


def _version_lines(explanation: Explanation) -> Lines:
    registered = explanation.registered
    if registered is None:
        yield (
            "version",
            f"{explanation.version}; its origin cannot be read from the registry: {explanation.registry_error}",
        )
        return
    yield "version", " ".join([explanation.version, *(f"@{alias}" for alias in registered.aliases)])
    description = parse_description(registered.description)
    if description.text:
        yield "  result", description.text
    if description.drift_url:
        yield "  drift pages", description.drift_url
    if registered.run_id is None:
        return
    yield "  run", f"{registered.run_id} ({registered.run_url})"
    yield "  retrain", f"{registered.retrain_id}, requested by {registered.requested_by}: {registered.reason}"
    yield "  git revision", registered.git_revision or "unknown"
    for name, value in registered.data.items():
        yield f"  {name.replace('_', ' ')}", value
    for pointer in registered.dataset_files.values():
        yield "  dataset", _dataset_text(pointer)


def _dataset_text(pointer: str) -> str:
    """Return in words which file a DVC pointer names."""
    try:
        file = parse_pointer(pointer)
    except DatasetVersionNotFound as error:
        return str(error)
    return ", ".join([file.name, *([f"{file.size:,} bytes"] if file.size is not None else []), f"md5 {file.md5}"])
