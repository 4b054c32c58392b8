"""The base of a group of settings. Only pydantic is imported, so that pure modules can have settings, too."""

from typing import Annotated

from pydantic import BaseModel, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class SettingsSection(BaseModel, extra="forbid", frozen=True):
    """A group of settings. An unknown name in it is an error, since it is probably misspelt."""
