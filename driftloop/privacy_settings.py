"""The settings of privacy at the source, which the predictor, the trainer, the drift worker and commands share."""

import json
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from driftloop.privacy import Privacy, Treatment
from driftloop.setting_values import split_list
from driftloop.settings_section import SettingsSection

MIN_HASH_KEY_LENGTH = 32
NEW_HASH_KEY = 'python -c "import secrets; print(secrets.token_hex(32))"'


def _split_treatments(value: Any) -> Any:
    """Return the treatments of a text that is a JSON object or ``column=treatment,…``; others are returned as they are.

    Raises:
        ValueError: The text is neither, or names a column twice.
    """
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return json.loads(value)
    treatments: dict[str, str] = {}
    for item in split_list(value):
        column, equals, treatment = (part.strip() for part in item.partition("="))
        if not (column and equals and treatment):
            known = ", ".join(map(repr, get_args(Treatment)))
            raise ValueError(f"{item!r} is not column=treatment with a treatment of {known}: email=hash,phone=drop")
        if column in treatments:
            raise ValueError(f"{item!r} names a column again")
        treatments[column] = treatment
    return treatments


Treatments = Annotated[dict[str, Treatment], NoDecode, BeforeValidator(_split_treatments)]
"""Treatments by column, as a JSON object or as ``column=treatment,…``."""


def _require_long_key(value: Any) -> Any:
    """Return the hash key if it is long enough; an empty one, as files for containers have it, counts as not set."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not text:
        return None
    if isinstance(text, str) and len(text) < MIN_HASH_KEY_LENGTH:
        raise ValueError(
            f"a key of at least {MIN_HASH_KEY_LENGTH} characters is needed, and this one has {len(text)}; "
            f"{NEW_HASH_KEY} makes one"
        )
    return value


class PrivacySettings(SettingsSection):
    """What becomes of the values of private columns before an event has them."""

    features: Treatments = Field(
        {},
        description="what becomes of features before an event has them: hash, drop or keep, as column=hash,column=drop "
        'or as JSON such as {"email": "hash"}; others are kept',
    )
    context: Treatments = Field(
        {},
        description="the same for columns that clients send along as context; others are treated as the feature of "
        "their name is",
    )
    # Files for containers and workflows cannot leave a variable out, so an empty one counts as not set.
    keys: Annotated[Literal["hash", "keep"], BeforeValidator(lambda treatment: treatment or "keep")] = Field(
        "keep", description="whether the clients' own keys of rows are hashed, in predictions and in outcomes"
    )
    hash_key: Annotated[SecretStr | None, BeforeValidator(_require_long_key)] = Field(
        None,
        description="secret key of the hashes, of at least 32 characters; needed if anything is hashed, and the same "
        "for all services and commands of a model",
    )

    @property
    def hashes(self) -> bool:
        """Whether anything is hashed."""
        return "hash" in (*self.features.values(), *self.context.values(), self.keys)

    @property
    def privacy(self) -> Privacy:
        """The treatments, with the key."""
        key = self.hash_key.get_secret_value().encode() if self.hash_key else b""
        return Privacy(self.features, self.context, self.keys == "hash", key)

    def require_features(self, known: Collection[str], owner: str) -> None:
        """Raise :class:`driftloop.errors.InvalidInput` if a feature with a treatment does not exist."""
        self.privacy.require_features(known, owner)


class SourcePrivacySettings(PrivacySettings):
    """The same where events or references are made, which needs the key."""

    @model_validator(mode="after")
    def _require_hash_key(self) -> Self:
        if self.hashes and self.hash_key is None:
            raise ValueError(
                "HASH_KEY is not set, and FEATURES, CONTEXT or KEYS say hash: set DRIFTLOOP_PRIVACY__HASH_KEY to a "
                f"secret of at least {MIN_HASH_KEY_LENGTH} characters; {NEW_HASH_KEY} makes one"
            )
        return self
