"""The README of a written use case: its commands, with an example from the table."""

import json
import shlex
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from driftloop_cli.new.plan import UseCasePlan
from driftloop_cli.new.prose import LINE_LENGTH, in_prose, wrap

EXAMPLE_ROWS = 50  # of which the one with the fewest missing values is the example
MAX_KEY_LENGTH = 256  # of a row's own key
ROWS_PER_REQUEST = 20
MIN_DAYS_OF_TWO_STREAMS = 32  # half of them hold the gate's 14 days, with outcomes that come a day later
MAX_FIRST_STREAM_DAYS = 30  # the policy asks for a retrain after 35

Cell = bool | int | float | str | None
"""A value of JSON."""


class Example(NamedTuple):
    """A row of the table, as a client would have sent it."""

    features: Mapping[str, Cell]
    outcome: Cell
    time: datetime
    """In the use case's time zone."""
    key: str | None
    """The row's own id; ``None`` if no column of ids was named, or if the row has none."""


def readme_values(plan: UseCasePlan) -> dict[str, str]:
    """Return the values that only the template of the README has."""
    first = plan.first_version
    return {
        "summary": _summary(plan),
        "first_rows": "all rows" if first.base_end is None else f"the {first.rows:,} rows before {first.base_end}",
        "settings": "".join(f"{variable}={value} \\\n" for variable, value in first.settings.items()),
        "settings_note": _settings_note(first.settings),
        "notes": "".join(f"{wrap(f'- {note}', '  ')}\n" for note in plan.notes) + "\n" if plan.notes else "",
        "requests": _requests(plan, choose_example(plan)),
        "stream": _stream(plan),
    }


def _settings_note(settings: Mapping[str, str]) -> str:
    if not settings:
        return ""
    text = wrap("The settings belong to each start of this use case, and to no other.")
    return f"\n{text}\n"


def choose_example(plan: UseCasePlan) -> Example:
    """Return the first row whose outcome is known that the first version has not seen, or one of the last rows.

    Among some rows it is the one with the fewest missing values.
    """
    target, first = plan.options.target, plan.first_version
    known = pc.indices_nonzero(plan.table[target].is_valid()).to_numpy()
    later = known[known >= first.rows]
    positions = later[:EXAMPLE_ROWS] if len(later) else known[: -EXAMPLE_ROWS - 1 : -1]
    names = [*plan.features, target, plan.options.time]
    key = plan.options.id if plan.options.id in plan.table.column_names else None
    table = plan.table.select([*names, key] if key and key not in names else names).take(pa.array(positions))
    row = min(table.to_pylist(), key=lambda row: sum(value is None for value in row.values()))
    cells = {name: _cell(plan, name, value) for name, value in row.items()}
    text = None if key is None or cells[key] is None else str(cells[key])
    return Example(
        features={name: cells[name] for name in plan.features},
        outcome=cells[target],
        time=row[plan.options.time].astimezone(ZoneInfo(plan.timezone)),
        key=text if text and len(text) <= MAX_KEY_LENGTH else None,
    )


def _cell(plan: UseCasePlan, name: str, value: object) -> Cell:
    """Return a cell as JSON has it. Integers with missing ones among them are stored as floats, and are integers."""
    if isinstance(value, float) and plan.facts[name].type == "integer":
        return int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _requests(plan: UseCasePlan, example: Example) -> str:
    """Return requests that predict the example and report its outcome, by its key or by the id of the answer."""
    keys = f'"keys": [{_json(example.key)}], ' if example.key is not None else ""
    name = f'"key": {_json(example.key)}' if example.key is not None else '"id": "…", "index": 0'
    by = (
        f"by its own id, `{in_prose(str(plan.options.id))}`"
        if example.key is not None
        else "by the answer's `id` in place of `…`"
    )
    outcome = f'{{"outcomes": [{{{name}, "outcome": {_json(example.outcome)}}}]}}'
    text = f"""In another shell, a prediction for a row of the table:

```
source .stack/env
{_curl("predict", example.time)}
    -d {_in_shell(f'{{{keys}"instances": [', _object(example.features) + "]}")}
```

What really happened, {by}:

```
{_curl("outcomes", example.time + timedelta(days=1))}
    -d {_in_shell(outcome)}
```

{wrap("The header `Driftloop-Time` dates both as in the table, the outcome a day later; live requests leave it out.")}
"""
    if example.key is None:
        return text
    return f"""{text}
Outcomes in a file, by the same ids; without `--dry-run` they are published:

```
.venv/bin/driftloop outcomes load FILE --key {_word(plan.options.id)} --outcome {_word(plan.options.target)} --dry-run
```
"""


def _curl(path: str, time: datetime) -> str:
    return (
        f"curl -s localhost:8000/{path} -H 'Content-Type: application/json' \\\n"
        f"    -H 'Driftloop-Time: {time.isoformat(timespec='seconds')}' \\"
    )


def _object(cells: Mapping[str, Cell]) -> str:
    """Return a JSON object in lines that are not too long, on lines of its own."""
    lines = [""]
    for name, value in cells.items():
        cell = f"{_json(name)}: {_json(value)}"
        if len(lines[-1]) + len(cell) > LINE_LENGTH - 10:
            lines.append("")
        lines[-1] += f"{cell}, "
    text = "\n     ".join(line.rstrip() for line in lines).rstrip(",")
    return f"\n    {{{text}}}"


def _in_shell(*texts: str) -> str:
    """Return JSON between single quotes, as a shell takes it."""
    return "'" + "".join(texts).replace("'", "'\\''") + "'"


def _word(name: str | None) -> str:
    return shlex.quote(str(name))


def _json(value: Cell) -> str:
    return json.dumps(value, ensure_ascii=False)


def _summary(plan: UseCasePlan) -> str:
    """Return where the rows are from, what is predicted, and how versions are compared."""
    first, target = plan.first_version, in_prose(plan.options.target)
    return wrap(
        f"Made by `driftloop new` from `{plan.options.file.name}` ({plan.format}): {plan.table.num_rows:,} rows from "
        f"{first.first_day} to {first.end - timedelta(days=1)}. The target `{target}`: {plan.target.reason}. Versions "
        f"are compared by `{plan.metric.name}`: {plan.metric.reason}."
    )


def _stream(plan: UseCasePlan) -> str:
    """Return how to stream the rows that the first version has not seen, and to retrain on them."""
    first = plan.first_version
    producer, options = ".venv/bin/driftloop-producer", f"--rate 200 --rows {ROWS_PER_REQUEST}"
    if first.base_end is None:
        return (
            "All rows are in the first version: drift is judged, and a retrain is possible, once new rows have been "
            "sent.\nThe addresses of pages and APIs are printed at the start."
        )
    middle = retrain_day(first.base_end, first.end)
    rest = ", and stream the rest, which the new version answers" if middle < first.end else ""
    last = f"{producer} --from {middle} --to {first.end} {options}\n" if middle < first.end else ""
    text = wrap(
        f"Stream the rows from {first.base_end} on, each outcome a day after its prediction. `--rows "
        f"{ROWS_PER_REQUEST}` sends up to so many in a request; with one a request, only some 30 a second are "
        "possible. Verdicts are on <http://localhost:8001>. The trainer may ask for a retrain by itself meanwhile, "
        f"unless it was started with `DRIFTLOOP_POLICY__ENABLED=false`. Then retrain on what was streamed{rest}:"
    )
    return f"""{text}

```
{producer} --from {first.base_end} --to {middle} {options}
.venv/bin/driftloop status
.venv/bin/driftloop retrain --reason "rows of later days" --to {first.base_end} --wait
{last}```"""


def retrain_day(base_end: date, end: date) -> date:
    """Return the day to stream to before a retrain: late enough for its holdout, and before the policy asks for one."""
    days = (end - base_end).days
    return end if days < MIN_DAYS_OF_TWO_STREAMS else base_end + timedelta(days=min(days // 2, MAX_FIRST_STREAM_DAYS))
