"""The setting that names a use case. It is not in the module of use cases, which needs no settings library."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, InstanceOf
from pydantic_settings import NoDecode

from driftloop.events import describe_conflict
from driftloop.usecase import UseCase

EXAMPLE = "usecases.loans:usecase"
EXPECTED = f"module:name is expected, such as {EXAMPLE}"
REFERENCE = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def load_use_case(reference: Any) -> Any:
    """Import the use case that a setting names; a value that is no text is returned as it is.

    The current folder is looked in as well, before all others, as ``python -m`` does: so a use case outside of the
    installed packages is found, whichever command reads the setting.

    Raises:
        ValueError: There is no such use case, or its module cannot be imported; the message says what is expected.
    """
    if not isinstance(reference, str):
        return reference
    parts = REFERENCE.fullmatch(reference.strip())
    if parts is None:
        raise ValueError(f"{reference!r} names no use case: {EXPECTED}")
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    module_name, name = parts["module"], parts["name"]
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{module_name}.".startswith(f"{missing}."):
            raise ValueError(
                f"there is no module {missing}, neither in the current folder, {Path.cwd()}, nor where Python looks: "
                f"{EXPECTED}"
            ) from error
        raise ValueError(f"{module_name} imports {missing}, which is not installed") from error
    except Exception as error:
        raise ValueError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    use_case = getattr(module, name, None)
    if not isinstance(use_case, UseCase):
        found = [key for key, value in vars(module).items() if isinstance(value, UseCase)]
        problem = f"has no {name}" if use_case is None else f"has a {name} that is a {type(use_case).__name__}"
        there = f"its use cases are {', '.join(found)}" if found else "it has no use case"
        raise ValueError(f"{module_name} {problem}, and a UseCase is needed; {there}: {EXPECTED}")
    return use_case


def require_own_columns(use_case: UseCase) -> UseCase:
    """Return a use case. Raises :class:`ValueError` if SQL takes two of its columns for one."""
    names = dict.fromkeys([*use_case.features, *use_case.context_columns, use_case.target, use_case.timestamp])
    if conflict := describe_conflict(list(names)):
        raise ValueError(f"the use case has {conflict}: rename them")
    return use_case


UseCaseSetting = Annotated[
    InstanceOf[UseCase],
    NoDecode,  # the variable holds a name, not JSON
    BeforeValidator(load_use_case),
    AfterValidator(require_own_columns),
    Field(description=f"module:name of the use case, such as {EXAMPLE}; the current folder is looked in as well"),
]
