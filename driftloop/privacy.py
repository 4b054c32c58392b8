"""Privacy at the source: what becomes of the values of private columns before an event has them.

A value that is hashed gets the same hash wherever it is met: in the predictor, in references, in imported predictions,
and as a key in outcomes. So rows can still be joined, and the frequencies of values be compared. Nothing but the hash
key leads from a hash back to its value: without it, not even values that everybody could list can be tried out.

Pure functions on plain data; :mod:`driftloop.privacy_settings` reads the settings.
"""

import hmac
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import sha256
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from pydantic_core import to_json

from driftloop.errors import InvalidInput
from driftloop.near_names import near_names

if TYPE_CHECKING:
    import pandas as pd  # only references are frames

    from driftloop.drift.comparable_columns import FeatureKind

Treatment = Literal["hash", "drop", "keep"]
"""What becomes of a column's values: a keyed hash, nothing at all, or the values themselves."""

PAST: Mapping[Treatment, str] = {"hash": "hashed", "drop": "dropped", "keep": "kept"}
FEATURES_SETTING = "DRIFTLOOP_PRIVACY__FEATURES"
CONTEXT_SETTING = "DRIFTLOOP_PRIVACY__CONTEXT"
KEYS_SETTING = "DRIFTLOOP_PRIVACY__KEYS"
HASH_KEY_SETTING = "DRIFTLOOP_PRIVACY__HASH_KEY"

HASH_BYTES = 16  # 128 bits: among a billion values, two have the same hash with a probability of 1 in 10^21
# Canonical texts begin with the name of a type and a colon, so no value has this one.
HASH_KEY_ID_TEXT = b"identity of a hash key"
HASH_KEY_ID_BYTES = 8


def canonical_text(value: object) -> str:
    """Return a text that two values share only if they are equal and of one type: number, text, boolean or time.

    Whole numbers are the same with and without a fraction of zero, because a missing value makes a column of integers
    one of floats. Times are compared in UTC to the microsecond; one without a zone is taken as UTC.

    Raises:
        TypeError: The value is of another type.
    """
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    match value:
        case bool():
            return f"boolean:{str(value).lower()}"
        case str():
            return f"text:{value}"
        case Integral():
            return f"number:{int(value)}"
        case Real():
            number = float(value)
            return f"number:{int(number) if number.is_integer() else number!r}"
        case datetime():
            moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
            return f"time:{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{moment.microsecond:06}Z"
        case date():
            return canonical_text(datetime(value.year, value.month, value.day, tzinfo=UTC))
    raise TypeError(f"a value of the type {type(value).__name__} cannot be hashed")


def is_missing(value: object) -> bool:
    """Return whether a cell has no value: ``None``, NaN, or one of pandas' marks of a missing value."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def hash_value(hash_key: bytes, value: object) -> str | None:
    """Return the keyed hash of a value, 32 hexadecimal digits; ``None`` for a missing value."""
    if is_missing(value):
        return None
    text = canonical_text(value).encode(errors="surrogatepass")
    return hmac.digest(hash_key, text, "sha256")[:HASH_BYTES].hex()


def hash_key_id(hash_key: bytes) -> str:
    """Return what tells a hash key from others, and does not lead back to it."""
    return hmac.digest(hash_key, HASH_KEY_ID_TEXT, "sha256")[:HASH_KEY_ID_BYTES].hex()


class FeaturePolicy(BaseModel, frozen=True):
    """How the features of events are treated. A drift profile has the one that its reference was made with."""

    features: dict[str, Treatment] = {}
    """The features that are hashed or dropped, by name."""
    hash_key_id: str | None = None
    """Tells the hash key from others; ``None`` if no feature is hashed, or if it is not known."""

    @property
    def digest(self) -> str:
        """A digest of the treatment of each feature, for a comparison with another policy."""
        return sha256(to_json(dict(sorted(self.features.items())))).hexdigest()[: 2 * HASH_BYTES]

    def treatment(self, column: str) -> Treatment:
        """Return what becomes of a feature's values."""
        return self.features.get(column, "keep")

    def differences(self, other: "FeaturePolicy") -> dict[str, str]:
        """Return why features under this policy cannot be compared with those under another, by name.

        Hashes are taken as made with one key unless both keys are known.
        """
        found = {}
        is_other_key = self.hash_key_id and other.hash_key_id and self.hash_key_id != other.hash_key_id
        for column in sorted({*self.features, *other.features}):
            own, others = self.treatment(column), other.treatment(column)
            if own != others:
                found[column] = f"{PAST[others]} in the reference, {PAST[own]} by {FEATURES_SETTING}"
            elif own == "hash" and is_other_key:
                found[column] = f"hashed in the reference by another key than {HASH_KEY_SETTING}"
        return found


ALL_KEPT = FeaturePolicy()
"""The policy under which no feature is private."""


@dataclass(frozen=True)
class Privacy:
    """What becomes of features, context and keys before an event has them; by default everything is kept."""

    features: Mapping[str, Treatment] = field(default_factory=dict)
    """The treatment of features; others are kept."""
    context: Mapping[str, Treatment] = field(default_factory=dict)
    """The treatment of columns of the context; others are treated as the feature of their name is."""
    hashes_keys: bool = False
    """Whether the clients' own keys of rows are hashed."""
    hash_key: bytes = field(default=b"", repr=False)
    """The key of the hashes; not empty if anything is hashed."""

    def is_private(self, column: str) -> bool:
        """Return whether a column is hashed or dropped, as a feature or as context."""
        return any(treatments.get(column, "keep") != "keep" for treatments in (self.features, self.context))

    @property
    def has_private_features(self) -> bool:
        """Whether any feature is hashed or dropped."""
        return any(treatment != "keep" for treatment in self.features.values())

    @property
    def feature_policy(self) -> FeaturePolicy:
        """What a version's reference is made with, and compared by."""
        private = {name: treatment for name, treatment in self.features.items() if treatment != "keep"}
        is_keyed = "hash" in private.values() and self.hash_key
        return FeaturePolicy(features=private, hash_key_id=hash_key_id(self.hash_key) if is_keyed else None)

    def treat_features(self, columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return the features of a request as its event has them."""
        return self._treat(columns, self.features)

    def treat_context(self, columns: Mapping[str, list[Any]] | None) -> dict[str, list[Any]] | None:
        """Return the context of a request as its event has it; ``None`` if no column is left."""
        return self._treat(columns or {}, {**self.features, **self.context}) or None

    def treat_keys(self, keys: Sequence[str | None] | None) -> list[str | None] | None:
        """Return the keys of rows as events have them."""
        return None if keys is None else [None if key is None else self.treat_key(key) for key in keys]

    def treat_key(self, key: str) -> str:
        """Return the key of a row as events have it."""
        return (hash_value(self.hash_key, key) or key) if self.hashes_keys else key

    def treat_frame(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Return a frame of features as events would have them: hashed columns are texts, dropped ones are left out."""
        hashed = {
            label: [
                None if missing else hash_value(self.hash_key, cell)
                for cell, missing in zip(frame[label].tolist(), frame[label].isna(), strict=True)
            ]
            for label in frame.columns
            if self.features.get(str(label)) == "hash"
        }
        kept = [label for label in frame.columns if self.features.get(str(label)) != "drop"]
        treated = frame[kept].copy(deep=False)
        for label, cells in hashed.items():
            treated[label] = _object_series(cells, treated)
        return treated

    def treat_kinds(self, kinds: "Mapping[str, FeatureKind]") -> "dict[str, FeatureKind]":
        """Return the kinds of features as they are compared: a hash is a category, whatever it was made of."""
        return {
            name: "category" if self.features.get(name) == "hash" else kind
            for name, kind in kinds.items()
            if self.features.get(name) != "drop"
        }

    @property
    def archive_note(self) -> str:
        """Why archived rows are not what a model takes, as the end of a sentence; empty if all features are kept."""
        private = ", ".join(self.feature_policy.features)
        return f"{FEATURES_SETTING} hides {private} from archived rows" if private else ""

    def describe_error(self, error: BaseException) -> str:
        """Return an exception of a model in words for logs and pages: without its message if features are private."""
        kind = type(error).__name__
        if not self.has_private_features:
            return f"{kind}: {error}"
        return f"{kind}; its message may quote values that {FEATURES_SETTING} hides"

    def require_features(self, known: Collection[str], owner: str) -> None:
        """Check that each feature with a treatment exists: a misspelt one would leave the values as they are.

        Args:
            known: The features that there are.
            owner: What has them, for the message.

        Raises:
            InvalidInput: There is no such feature.
        """
        for name in self.features:
            if name not in known:
                near = near_names(name, known)
                meant = f"did you mean {', '.join(near)}" if near else f"its features are {', '.join(known)}"
                raise InvalidInput(f"{FEATURES_SETTING} names the feature {name}, which {owner} does not have: {meant}")

    def _treat(self, columns: Mapping[str, list[Any]], treatments: Mapping[str, Treatment]) -> dict[str, list[Any]]:
        treated: dict[str, list[Any]] = {}
        for name, cells in columns.items():
            treatment = treatments.get(name, "keep")
            if treatment == "hash":
                treated[name] = [hash_value(self.hash_key, cell) for cell in cells]
            elif treatment == "keep":
                treated[name] = cells
        return treated


NO_PRIVACY = Privacy()


def _object_series(cells: Sequence[str | None], frame: "pd.DataFrame") -> "pd.Series":
    """Return cells as a column of a frame, in which a missing one stays ``None``."""
    import pandas as pd  # noqa: PLC0415  # clients that make single events do not need it

    return pd.Series(cells, index=frame.index, dtype=object)
