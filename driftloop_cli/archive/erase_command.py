"""The commands ``driftloop archive erase`` and ``driftloop archive erasures``."""

import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from driftloop.command_line import load_settings_or_exit, user_name
from driftloop.errors import InvalidInput
from driftloop_cli.console import (
    AsJson,
    exit_on_registry_error,
    print_json,
    print_message,
    print_notice,
    print_table,
)
from driftloop_cli.settings import StorageCliSettings

if TYPE_CHECKING:
    from driftloop.archive.erasures import Erasure
    from driftloop_cli.archive.erase import Eraser

REPORT_INTERVAL_SECONDS = 5
MAX_LISTED = 20  # files, before the number of the others is given


def erase(
    ids: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="id of a prediction; repeatable")] = None,
    ids_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="file with an id in each line; - for standard input")
    ] = None,
    keys: Annotated[list[str] | None, typer.Option("--key", metavar="KEY", help="a row's own key; repeatable")] = None,
    keys_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="file with a key in each line, - for standard input; so no shell history has them"
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="CONDITION", help="condition on the archive's columns, in DuckDB's SQL")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="only rows of this model")] = None,
    reason: Annotated[
        str, typer.Option(help="required: why, for the audit log, which is kept: name no data here")
    ] = "",
    by: Annotated[str | None, typer.Option(metavar="NAME", help="who erases; by default the user and machine")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be erased")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase predictions with their outcomes, from archive, reports, references and, for readers, from the topics.

    Name them by ids, by keys, or by a condition on columns. Before anything is erased, it shows how much was found and
    which dataset versions have copies, and asks. A run that was interrupted is finished by the next one; a second run
    finds nothing. The audit log (`driftloop archive erasures`) has when, who, why and where, and no data. The topics'
    own log has the messages until its retention is over. Reads DRIFTLOOP_STORAGE__URL, DRIFTLOOP_KAFKA__…,
    DRIFTLOOP_REGISTRY__… and DRIFTLOOP_PRIVACY__…. The exit code is 2 for an invalid condition, and 6 if store, Kafka
    or MLflow does not answer.

        driftloop archive erase --id 01a20ec1-a01f-74a7-88c6-8d5a4f14f106 --reason "request 17" --dry-run

        driftloop archive erase --keys-from keys.txt --model loans --reason "request 17"

        driftloop archive erase --where "country = 'FR' AND _time < '2026-01-01'" --reason "contract ended" --yes

        driftloop archive erase --where "_context->>'$.customer' = hashed('4711')" --reason "request 18"
    """
    from driftloop_cli.archive.erase import Eraser, Request  # noqa: PLC0415  # DuckDB and pandas take seconds to import

    if not reason.strip():
        raise InvalidInput("--reason: say why, for the audit log")
    all_ids, all_keys = _values(ids, ids_from, "--ids-from"), _values(keys, keys_from, "--keys-from")
    if sum([bool(all_ids), bool(all_keys), where is not None]) != 1:
        raise InvalidInput("say what to erase: by --id or --ids-from, by --key or --keys-from, or by --where")
    settings = load_settings_or_exit(StorageCliSettings)
    with exit_on_registry_error():
        eraser = Eraser(settings, _Reporter())
        finished = [] if dry_run else _finish(eraser)
        request = Request(frozenset(all_ids), frozenset(all_keys), where, model)
        erasure = eraser.find(request, by or f"{user_name()}@{socket.gethostname()}", reason)
        if erasure.partitions and not dry_run:
            if not as_json:
                print_erasure(erasure)
            _confirm(yes=yes)
            erasure = eraser.erase(erasure)
    if as_json:
        facts = erasure.model_dump(exclude={"partitions"})
        print_json({**facts, "dry_run": dry_run, "erased": erasure.done_at is not None, "finished": finished})
    elif not erasure.partitions:
        print_message("nothing was found")
    elif dry_run:
        print_erasure(erasure)
        print_message("dry run: nothing is erased")
    else:
        print_message(f"erased: {erasure.id}")


def list_erasures(as_json: AsJson = False) -> None:
    """List the audit log: what was erased when, by whom and why, without the data.

    Reads DRIFTLOOP_STORAGE__URL.

        driftloop archive erasures
    """
    from driftloop.archive import erasures  # noqa: PLC0415  # pandas takes seconds to import
    from driftloop.storage.object_store import ObjectStore  # noqa: PLC0415

    settings = load_settings_or_exit(StorageCliSettings)
    found = erasures.read_all(ObjectStore(settings.storage).require_answer())
    if as_json:
        print_json({"erasures": [erasure.model_dump(exclude={"partitions"}) for erasure in found]})
        return
    if not found:
        print_message("nothing was erased")
        return
    table = Table("id", "begun at", "done at", "by", "named by", "rows", "messages", "datasets", "reason")
    for each in found:
        rows = sum(count.archived_rows + count.unarchived_rows for count in each.counts.values())
        messages = sum(count.messages for count in each.counts.values())
        table.add_row(
            each.id,
            each.begun_at.isoformat(timespec="seconds"),
            each.done_at.isoformat(timespec="seconds") if each.done_at else "interrupted",
            escape(each.requested_by),
            describe_request(each),
            f"{rows:,}",
            f"{messages:,}",
            f"{len(each.datasets):,}",
            escape(each.reason),
        )
    print_table(table)


def describe_request(erasure: "Erasure") -> str:
    """Return in words how the rows of an erasure were named."""
    request = erasure.request
    named = (
        f"columns {', '.join(request.columns)}"
        if request.kind == "condition"
        else f"{request.values:,} {request.kind}s"
    )
    return named if request.model is None else f"{named} of {request.model}"


def print_erasure(erasure: "Erasure") -> None:
    """Print what was found: how much, where, and which copies stay."""
    table = Table("topic", "archived rows", "rows on the topic alone", "messages that the topic still has")
    for topic, count in erasure.counts.items():
        table.add_row(topic, f"{count.archived_rows:,}", f"{count.unarchived_rows:,}", f"{count.messages:,}")
    print_table(table)
    for what, paths in (("files", erasure.files), ("reports", erasure.reports)):
        print_message(f"{what}: {len(paths):,}")
        for path in paths[:MAX_LISTED]:
            print_message(f"  {path}")
        if len(paths) > MAX_LISTED:
            print_message(f"  and {len(paths) - MAX_LISTED:,} more")
    for dataset in erasure.datasets:
        versions = ", ".join(dataset.versions) or "no version that the registry has"
        print_message(f"dataset {dataset.md5} keeps copies of {dataset.rows:,} rows; trained on it: {versions}")
    for reference in erasure.references:
        print_message(f"reference {reference.path}: {len(reference.positions):,} rows with the same features")


def _values(values: list[str] | None, file: Path | None, option: str) -> set[str]:
    """Return values of options and of the lines of a file."""
    lines: list[str] = []
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{option}: {file} cannot be read: {error}") from error
        # Only line feeds end a line, as a key may have any other character; some editors begin files with a mark.
        lines = [line for line in text.removeprefix("\ufeff").split("\n") if line]
        if not lines:
            raise InvalidInput(f"{option}: {file} is empty")
    if "" in (values or ()):
        raise InvalidInput(f"{option.removesuffix('s-from')}: a value is empty")
    return {*(values or ()), *lines}


def _finish(eraser: "Eraser") -> list[str]:
    """Go on with erasures that were interrupted; return their ids."""
    finished = []
    for erasure in eraser.unfinished():
        print_notice(f"goes on with {erasure.id}, which was interrupted")
        finished.append(eraser.erase(erasure).id)
    return finished


def _confirm(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("nobody can be asked here: say --yes to erase, or --dry-run to look")
    typer.confirm("This cannot be undone. Erase?", abort=True, err=True)


class _Reporter:
    """Prints progress to standard error, at most every few seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + REPORT_INTERVAL_SECONDS

    def __call__(self, progress: str) -> None:
        if time.monotonic() >= self._next:
            print_notice(progress)
            self._next = time.monotonic() + REPORT_INTERVAL_SECONDS
