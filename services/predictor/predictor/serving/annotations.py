"""What a client may send along with its rows: a key of its own for each, and columns that the model does not take."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple, NotRequired

from pydantic import ConfigDict, FailFast, Field, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import TypedDict  # pydantic requires this one before Python 3.12

from driftloop.errors import InvalidInput
from driftloop.events import ContextValue, RowKey

MAX_CONTEXT_COLUMNS = 100
ContextName = Annotated[str, Field(min_length=1, max_length=256)]
Keys = Annotated[list[RowKey | None], FailFast()]
ContextRows = Annotated[list[dict[ContextName, ContextValue]], FailFast()]
Context = dict[str, list[ContextValue]]
"""Values by column."""
FIELDS: dict[str, Any] = {"keys": NotRequired[Keys], "context": NotRequired[ContextRows]}
"""The fields of a request in JSON that stand beside its rows: both are lists with one item for each row."""
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class InvalidAnnotations(InvalidInput):
    """The keys or the context of a request are invalid."""

    def __init__(self, place: tuple[str, str], message: str) -> None:
        """Create the error.

        Args:
            place: Where the invalid value stands: ``body`` or ``header``, and the name of the field.
            message: What is wrong, without the place.
        """
        super().__init__(f"{place[1]}: {message}")
        self.place = place


KEYS, CONTEXT = ("body", "keys"), ("body", "context")


class Annotations(NamedTuple):
    """Keys and context of a request."""

    keys: list[str | None] | None = None
    """The key of each row."""
    context: Context | None = None
    context_rows: int | None = None
    """The number of rows of a context that is sent by row."""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "Annotations":
        """Return the annotations among validated :data:`FIELDS`.

        Raises:
            InvalidAnnotations: The context has too many columns.
        """
        rows = fields.get("context")
        if rows is None:
            return cls(fields.get("keys"))
        return cls(fields.get("keys"), _to_columns(rows) or None, len(rows))

    def require_row_count(self, row_count: int) -> None:
        """Check that there is one key, and one value of each column of the context, for each row.

        Raises:
            InvalidAnnotations: There are more or fewer.
        """
        if self.keys is not None and len(self.keys) != row_count:
            raise InvalidAnnotations(KEYS, f"the request has {row_count} rows, and {len(self.keys)} keys")
        if self.context_rows is not None and self.context_rows != row_count:
            raise InvalidAnnotations(CONTEXT, f"the request has {row_count} rows, and the context {self.context_rows}")
        for name, cells in (self.context or {}).items():
            if len(cells) != row_count:
                problem = f"the request has {row_count} rows, and {name!r:.100} has {len(cells)} values"
                raise InvalidAnnotations(CONTEXT, problem)


NO_ANNOTATIONS = Annotations()


def typed_dict(name: str, fields: dict[str, Any], config: ConfigDict) -> Any:
    """Create a typed dictionary: its keys may be any strings, and validating one costs half as much as a model does."""
    create: Any = TypedDict
    created = create(name, fields)
    created.__pydantic_config__ = config
    return created


_fields_adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(typed_dict("Annotations", FIELDS, STRICT))
_cells_adapter: TypeAdapter[list[ContextValue]] = TypeAdapter(Annotated[list[ContextValue], FailFast()], config=STRICT)


def take_annotations(request: dict[str, Any]) -> Annotations:
    """Remove keys and context from a request in JSON, and return them.

    Raises:
        pydantic.ValidationError: They are of another type.
        InvalidAnnotations: The context has too many columns, or a text is not valid Unicode.
    """
    fields = _fields_adapter.validate_python({name: request.pop(name) for name in FIELDS if name in request})
    try:
        to_json(fields)
    except PydanticSerializationError as error:  # an unpaired surrogate
        raise InvalidAnnotations(KEYS, "a text of keys or context is not valid Unicode") from error
    return Annotations.from_fields(fields)


def context_cells(cells: Sequence[Any]) -> list[ContextValue]:
    """Return the values of a column of the context.

    Raises:
        pydantic.ValidationError: A value is of another type, infinite, or a text that UTF-8 cannot encode.
    """
    return _cells_adapter.validate_python(cells)


def _to_columns(rows: Sequence[Mapping[str, ContextValue]]) -> Context:
    names = dict.fromkeys(name for row in rows for name in row)
    if len(names) > MAX_CONTEXT_COLUMNS:
        raise InvalidAnnotations(CONTEXT, f"it has {len(names):,} columns, and may have {MAX_CONTEXT_COLUMNS}")
    return {name: [row.get(name) for row in rows] for name in names}
