"""Hypothesis strategies for events of every type, made from the types and the bounds of their fields."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from hypothesis import reject
from hypothesis import strategies as st
from pydantic import AfterValidator, AwareDatetime, BaseModel, ValidationError

from driftloop.events import Event, Outcome, Prediction, require_name

MAX_LENGTH = 4  # of lists and mappings
TRACEPARENTS = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)
IDS = st.text("abcXYZ019_./:-", min_size=1, max_size=256)
NAMES = st.sampled_from(["m", "1", "größe", "o'hare", "made up", "…", "n" * 255, "é" * 127]) | st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters="/:\\"), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
TIMES = st.builds(
    datetime.astimezone,
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    st.integers(1 - 24 * 60, 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


class Bounds(NamedTuple):
    """What a field's metadata says about its numbers and texts."""

    least: int | None = None
    most: int | None = None
    min_length: int = 0
    max_length: int | None = None

    @classmethod
    def of(cls, metadata: Sequence[Any]) -> "Bounds":
        """Return the bounds in the metadata of a field or of ``Annotated``."""
        found: dict[str, int] = {}
        for each in metadata:
            for part in getattr(each, "metadata", None) or [each]:
                for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
                    if isinstance(getattr(part, name, None), int):  # all times are made within their bounds
                        found[name] = getattr(part, name)
        least = found["gt"] + 1 if "gt" in found else found.get("ge")
        most = found["lt"] - 1 if "lt" in found else found.get("le")
        return cls(least, most, found.get("min_length", 0), found.get("max_length"))


def events_of(event_type: type[Event]) -> st.SearchStrategy[Any]:
    """Return events of a type, with awkward values, but without numbers that JSON lacks and without times as cells."""
    if event_type is Prediction:
        return st.integers(0, MAX_LENGTH).flatmap(lambda rows: _models(event_type, rows))
    if event_type is Outcome:
        by_id, by_key = {"prediction_id", "index"}, {"model", "key"}
        return _models(event_type, None, by_id, by_key) | _models(event_type, None, by_key, by_id)
    return _models(event_type, None)


def _models(
    model: type[BaseModel], rows: int | None, always: Collection[str] = (), never: Collection[str] = ()
) -> st.SearchStrategy[Any]:
    """Return models; ``rows`` is the length of their lists if all have the same."""
    required, optional = {}, {}
    for name, field in model.model_fields.items():
        values = TRACEPARENTS if name == "traceparent" else _values(field.annotation, field.metadata, rows)
        if name in always:
            required[name] = values.filter(lambda value: value is not None)
        elif field.is_required():
            required[name] = values
        elif name not in never:
            optional[name] = values
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: _valid(model, values))


def _valid(model: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError:  # of what no single field says, such as an end before its start
        reject()


def _values(kind: Any, metadata: Sequence[Any], rows: int | None) -> st.SearchStrategy[Any]:
    """Return values of a field's type that its metadata allows."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        values = _values(arguments[0], [*arguments[1:], *metadata], rows)
    elif origin is Literal:
        values = st.sampled_from(arguments)
    elif origin in (Union, UnionType):
        kinds = [each for each in arguments if each is not datetime]  # cells that are times are read as texts
        values = st.one_of(*(_values(each, metadata, rows) for each in kinds))
    elif origin is list:
        least, most = (0, MAX_LENGTH) if rows is None else (rows, rows)
        values = st.lists(_values(arguments[0], (), rows), min_size=least, max_size=most)
    elif origin is dict:
        values = st.dictionaries(st.text(max_size=20), _values(arguments[1], (), rows), max_size=MAX_LENGTH)
    elif issubclass(kind, BaseModel):
        values = _models(kind, rows)
    else:
        values = _scalars(kind, metadata)
    return values


def _scalars(kind: type, metadata: Sequence[Any]) -> st.SearchStrategy[Any]:
    bounds = Bounds.of(metadata)
    texts = st.text(min_size=bounds.min_length, max_size=bounds.max_length or 40)
    if any(isinstance(each, AfterValidator) and each.func is require_name for each in metadata):
        texts = NAMES
    elif any(getattr(each, "pattern", None) for each in metadata):
        texts = IDS
    by_type: dict[type, st.SearchStrategy[Any]] = {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(bounds.least, bounds.most),
        float: NUMBERS,
        str: texts,
        AwareDatetime: TIMES,
        date: st.dates(date(1970, 1, 1), date(2199, 12, 31)),
    }
    return by_type[kind]
