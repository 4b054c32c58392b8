"""Write docs/events.md, the reference of all topics and events, from the models in :mod:`driftloop.events`.

python -m tools.events_page           write the part of the page below the mark; the text above it is kept
python -m tools.events_page --check   exit with 1 if that would change the page
"""

import json
import sys
from collections.abc import Iterator
from inspect import cleandoc, getdoc
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from driftloop.events import EVENTS, Event, RetrainRequest, Topic

PAGE = Path(__file__).parent.parent / "docs" / "events.md"
MARK = "<!-- Everything below is generated: run make docs. -->\n"
HEADER_ONLY = {"traceparent"}  # fields that are Kafka headers and no part of the JSON value
EVENT_BY_NAME = {event.__name__: event for event in EVENTS.values()}
Schema = dict[str, Any]


def schemas() -> dict[str, Schema]:
    """Return the JSON Schema of each event, of the body of ``POST /retrain``, and of each object in them, by name."""
    models: list[type[BaseModel]] = [*EVENTS.values(), RetrainRequest]
    _, combined = models_json_schema([(model, "serialization") for model in models])
    definitions: dict[str, Schema] = combined["$defs"]
    return definitions


def page(text_above_mark: str) -> str:
    """Return the whole page: the text above the mark, then topics, events and the objects that events contain."""
    definitions = schemas()
    parts = [text_above_mark, MARK, "\n## Topics and events\n\n"]
    parts.append("| topic | event | type | when |\n|---|---|---|---|\n")
    for topic in get_args(Topic):
        parts += [
            f"| `{topic}` | {_link(event.__name__)} | `{event.type}` | {_first_paragraph(event)} |\n"
            for event in EVENTS.values()
            if event.topic == topic
        ]
    for event in EVENTS.values():
        parts += [f"\n## {event.__name__}\n\n", *_describe_event(event), *_field_table(definitions[event.__name__])]
    parts.append("\n## Objects in events and requests\n")
    for name in sorted(definitions.keys() - EVENT_BY_NAME.keys()):
        parts += [f"\n### {name}\n\n", f"{_one_line(definitions[name].get('description', ''))}\n\n"]
        parts += _field_table(definitions[name])
    return "".join(parts)


def _describe_event(event: type[Event]) -> Iterator[str]:
    key = _one_line(getdoc(event.message_key) or "").removesuffix(".")
    yield f"{_one_line(cleandoc(event.__doc__ or ''))}\n\n"
    yield f"Type `{event.type}`, topic `{event.topic}`. Message key: {key}.\n\n"


def _field_table(schema: Schema) -> Iterator[str]:
    yield "| field | type | default | description |\n|---|---|---|---|\n"
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        if name not in HEADER_ONLY:
            description = _one_line(field.get("description", ""))
            yield f"| `{name}` | {_type(field)} | {_default(name, field, required)} | {description} |\n"


def _type(field: Schema) -> str:
    """Return a field's type in words, with links to objects that are described on the page."""
    match field:
        case {"$ref": str(reference)}:
            text = _link(reference.rpartition("/")[2])
        case {"enum": values}:
            text = " or ".join(f"`{value}`" for value in values)
        case {"anyOf": options}:
            text = " or ".join(_type(option) for option in options)
        case {"type": "array", "items": {"anyOf": _} as items}:
            text = f"list of ({_type(items)})"
        case {"type": "array", "items": items}:
            text = f"list of {_type(items)}"
        case {"additionalProperties": dict(values)}:
            text = f"object of {_type(values)}"
        case _:
            text = str(field.get("format") or field["type"])
    return text


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _default(name: str, field: Schema, required: set[str]) -> str:
    if "default" in field:
        return "the object's defaults" if "$ref" in field else f"`{json.dumps(field['default'])}`"
    return "required" if name in required else "generated"


def _first_paragraph(event: type[Event]) -> str:
    return _one_line(cleandoc(event.__doc__ or "").partition("\n\n")[0])


def _one_line(text: str) -> str:
    """Return text as it fits into a cell of a Markdown table."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit code."""
    current = PAGE.read_text()
    new = page(current.partition(MARK)[0])
    if arguments == ["--check"]:
        if new != current:
            print("docs/events.md is stale: run make docs")
        return int(new != current)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
