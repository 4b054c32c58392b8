"""The reference of all settings, generated from the settings models.

python -m tools.settings_page           writes docs/settings.md
python -m tools.settings_page --check   exits with code 1 if that would change the page
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic_settings import BaseSettings

from drift_worker.settings import DriftWorkerSettings
from driftloop.settings import Variable, list_variables
from predictor.settings import PredictorSettings
from producer.settings import ProducerSettings
from stack.settings import StackSettings
from trainer.settings import TrainerSettings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"

MODELS: Mapping[str, type[BaseSettings]] = {
    "predictor": PredictorSettings,
    "drift worker": DriftWorkerSettings,
    "trainer": TrainerSettings,
    "producer": ProducerSettings,
    "stack": StackSettings,
}

INTRODUCTION = """\
# Settings

<!-- This page is written by make docs, from the settings models in the code. -->

Services and commands are configured by environment variables. A service that starts with a missing, misspelt or invalid
variable prints its name and what is wrong with it, and exits with code 2; a name whose section is misspelt, such as
`DRIFTLOOP_PREDCTOR__PORT`, is ignored. `--help` of each service lists its own variables.
Values of objects are JSON, such as `DRIFTLOOP_CALIBRATION__DISTANCES='{"purpose": "psi"}'`.

The command `driftloop` reads the variables of Kafka, topics, registry, object store, [archive](archive.md), quality and
[privacy](privacy.md), and `DRIFTLOOP_TRAINER__API_KEY` where it talks to the trainer over HTTP. `driftloop-train` reads
those of the trainer, of which it needs no API key. What the object store takes from other variables is
[a page of its own](storage.md).
"""


def page() -> str:
    """Return the text of the page."""
    variables: dict[str, Variable] = {}
    readers: dict[str, list[str]] = {}
    for service, model in MODELS.items():
        for variable in list_variables(model):
            variables.setdefault(variable.name, variable)
            readers.setdefault(variable.name, []).append(service)
    # The stack reads the services' ports; they stay in the services' tables.
    services = {name: [reader for reader in found if reader != "stack"] or found for name, found in readers.items()}
    shared = [name for name, found in services.items() if len(found) > 1]
    parts = [INTRODUCTION, "\n## Shared\n\n", "| variable | meaning | default | read by |\n|---|---|---|---|\n"]
    parts += [f"{_row(variables[name])} {', '.join(services[name])} |\n" for name in shared]
    for service in MODELS:
        own = [variables[name] for name, found in services.items() if found == [service]]
        parts.append(f"\n## {service.capitalize()}\n\n{_table(own)}")
    return "".join(parts)


def _table(variables: Iterable[Variable]) -> str:
    return "| variable | meaning | default |\n|---|---|---|\n" + "".join(
        f"{_row(variable)}\n" for variable in variables
    )


def _row(variable: Variable) -> str:
    description = variable.description.replace("|", "\\|")
    if variable.choices:
        description += f" (one of {', '.join(f'`{choice}`' for choice in variable.choices)})"
    match variable.default:
        case None:
            default = "required"
        case "not set":
            default = ""
        case value:
            default = f"`{value}`"
    return f"| `{variable.name}` | {description} | {default} |"


def main(arguments: list[str]) -> int:
    """Write or check the page; return the exit code."""
    text = page()
    if arguments == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != text:
            print("docs/settings.md is stale: run make docs")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
