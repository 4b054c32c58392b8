"""The commands ``driftloop dlq …``: what to do with messages that were no valid events."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import typer
from rich.markup import escape
from rich.table import Table

from driftloop.command_line import load_settings_or_exit
from driftloop.errors import InvalidInput
from driftloop.events import parse_iso_time
from driftloop.exit_codes import ExitCode
from driftloop.kafka import dead_letter_queue
from driftloop.kafka.dead_letter_queue import DeadLetter
from driftloop.settings import Settings, StorageSettings
from driftloop_cli.console import AsJson, exit_with, print_json, print_message, print_notice, print_table

app = typer.Typer(no_args_is_help=True)

Topic = Annotated[str | None, typer.Option(metavar="TOPIC", help="only messages of this topic, such as predictions")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="only those moved since then, in ISO 8601; UTC without a zone")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="only those moved before then")]
ErrorText = Annotated[str | None, typer.Option("--error", metavar="TEXT", help="only those whose error has this text")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]…", help="dead letters, as `list` names them")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only show what would be done")]


class Selection(NamedTuple):
    """Which dead letters a command is about; empty for all."""

    ids: Sequence[str] = ()
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    error: str | None = None

    @classmethod
    def parse(
        cls, ids: Sequence[str] | None, topic: str | None, since: str | None, until: str | None, error: str | None
    ) -> "Selection":
        """Return the selection that the options of a command make.

        Raises:
            InvalidInput: A time is not in ISO 8601.
        """
        return cls(ids or (), topic, _parse_time("--since", since), _parse_time("--until", until), error)

    def has(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter is selected."""
        return (
            (not self.ids or letter.id in self.ids)
            and (self.since is None or letter.moved_at >= self.since)
            and (self.until is None or letter.moved_at < self.until)
            and (self.error is None or self.error in letter.origin.error)
        )


@app.callback()
def dlq() -> None:
    """Look at messages that were no valid events, move them back to their topics, or drop them.

    Those that `driftloop archive erase` has erased are left out; for that, DRIFTLOOP_STORAGE__URL is read.
    """


@app.command("list")
def list_letters(
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    error: ErrorText = None,
    with_done: Annotated[bool, typer.Option("--done", help="also those that were redriven or dropped")] = False,
    as_json: AsJson = False,
) -> None:
    """List the dead letters that wait: where each message was, and what is wrong with it.

    driftloop dlq list --topic predictions --since 2026-11-01
    """
    letters = [
        letter
        for letter in _select(Selection.parse(None, topic, since, until, error))
        if with_done or letter.state == "waiting"
    ]
    if as_json:
        print_json({"dead_letters": [_facts(letter) for letter in letters]})
        return
    if not letters:
        print_message("there are no dead letters")
        return
    table = Table("id", "moved at", "message", "bytes", "state", "error")
    for letter in letters:
        origin = letter.origin
        position = f"{origin.topic}-{origin.partition}@{origin.offset}"
        moved_at = letter.moved_at.isoformat(timespec="seconds")
        table.add_row(letter.id, moved_at, position, f"{origin.size:,}", letter.state, escape(origin.error))
    print_table(table)


@app.command("show")
def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="the dead letter, as `list` names it")],
    as_json: AsJson = False,
) -> None:
    """Show a dead letter: its origin, key, headers and value, and whether it can be moved back.

    The exit code is 7 if there is none with this id.

        driftloop dlq show predictions.dlq-0@12
    """
    (letter,) = _require(Selection(ids=[letter_id]))
    facts = {**_facts(letter), **_contents(letter)}
    if as_json:
        print_json(facts)
        return
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        table.add_row(f"[bold]{name}[/]", escape("-" if fact is None else str(fact)))
    print_table(table)


@app.command("redrive")
def redrive(
    ids: Ids = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    error: ErrorText = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Move messages that are valid events now back to their topics, each once, whoever runs this how often.

    Say which: by ids, or by options. A message that is still invalid, or that the dead letter has not all of, stays
    where it is. The exit code is 7 if one that was named by its id stays.

        driftloop dlq redrive --topic predictions --error "unknown type" --dry-run
    """
    _settle("redriven", Selection.parse(ids, topic, since, until, error), dry_run=dry_run, as_json=as_json)


@app.command("drop")
def drop(
    ids: Ids = None,
    topic: Topic = None,
    since: Since = None,
    until: Until = None,
    error: ErrorText = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Mark dead letters as done, so that they are not listed any more. Their topic keeps them for its retention time.

    Say which: by ids, or by options.

        driftloop dlq drop predictions.dlq-0@12
    """
    _settle("dropped", Selection.parse(ids, topic, since, until, error), dry_run=dry_run, as_json=as_json)


def _settle(state: Literal["redriven", "dropped"], selection: Selection, *, dry_run: bool, as_json: bool) -> None:
    """Redrive or drop what is selected, and print what was done."""
    if selection == Selection():
        raise InvalidInput("say which dead letters: by their ids, or by --topic, --since, --until or --error")
    letters = [letter for letter in _require(selection) if letter.state == "waiting"]
    problems = {letter.id: letter.problem for letter in letters} if state == "redriven" else {}
    possible = [letter for letter in letters if problems.get(letter.id) is None]
    kept = {letter_id: problem for letter_id, problem in problems.items() if problem is not None}
    settings = load_settings_or_exit(Settings)
    done = possible if dry_run else list(dead_letter_queue.settle(settings.kafka, possible, state))
    if as_json:
        print_json({state: [letter.id for letter in done], "kept": kept, "dry_run": dry_run})
    else:
        verb = f"would be {state}" if dry_run else state
        for letter in done:
            print_message(f"{letter.id}: {verb}")
        print_message(f"{len(done)} {verb}, {len(kept)} kept")
    for letter_id, problem in kept.items():
        print_notice(f"{letter_id} stays: {problem}")
    if selection.ids and kept:
        raise typer.Exit(ExitCode.REFUSED)


def _require(selection: Selection) -> list[DeadLetter]:
    """Return the selected dead letters; exit if one that is named by its id does not exist."""
    letters = _select(selection)
    missing = set(selection.ids) - {letter.id for letter in letters}
    if missing:
        raise exit_with(
            ExitCode.REFUSED, f"there is no dead letter {', '.join(sorted(missing))}: see driftloop dlq list"
        )
    return letters


class DlqSettings(Settings):
    """What these commands read from the environment."""

    storage: StorageSettings = StorageSettings()


def _select(selection: Selection) -> list[DeadLetter]:
    """Return the dead letters that are selected, without those that were erased."""
    settings = load_settings_or_exit(DlqSettings)
    names = settings.topics.names()
    if selection.topic is not None and selection.topic not in names:
        raise InvalidInput(f"--topic: there is no topic {selection.topic}; the topics are {', '.join(names)}")
    letters = dead_letter_queue.read_dead_letters(
        settings.kafka, names if selection.topic is None else [selection.topic]
    )
    selected = [letter for letter in letters if selection.has(letter)]
    return _without_erased(settings, selected) if selected else []


def _without_erased(settings: DlqSettings, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    from driftloop.archive.erasures import Tombstones  # noqa: PLC0415  # pandas takes seconds to import
    from driftloop.storage.object_store import ObjectStore  # noqa: PLC0415

    tombstones = Tombstones(ObjectStore(settings.storage).require_answer())
    return [
        letter
        for letter in letters
        if not tombstones.is_erased(letter.topic, letter.partition, letter.offset, letter.moved_at)
    ]


def _facts(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "state": letter.state,
        "moved_at": letter.moved_at,
        **letter.origin._asdict(),
        "problem": letter.problem,
    }


def _contents(letter: DeadLetter) -> dict[str, Any]:
    key, value, headers = letter.message
    return {"key": _text(key), "headers": {name: _text(content) for name, content in headers}, "value": _text(value)}


def _text(content: bytes | None) -> str | None:
    """Return bytes as text, or in base64 if they are none."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"


def _parse_time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = parse_iso_time(text)
    except ValueError as error:
        raise InvalidInput(f"{option}: {error}") from error
    assert isinstance(time, datetime)  # a text gives nothing else
    return time if time.tzinfo else time.replace(tzinfo=UTC)
