"""The setting that names a use case. It is not in the module of use cases, which needs no settings library."""

from typing import Annotated

from pydantic import Field, ImportString
from pydantic_settings import NoDecode

from driftloop.usecase import UseCase

UseCaseSetting = Annotated[
    ImportString[UseCase],
    NoDecode,  # the variable holds a name, not JSON
    Field(description="module:name of the use case, such as usecases.flights:usecase"),
]
