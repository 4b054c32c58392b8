"""What ``driftloop import`` reads from the environment: the use case, whose module imports pandas."""

from typing import Self

from pydantic import model_validator

from driftloop.usecase_setting import UseCaseSetting
from driftloop_cli.settings import StorageCliSettings


class ImportSettings(StorageCliSettings):
    """Settings of ``driftloop import predictions``."""

    use_case: UseCaseSetting

    @model_validator(mode="after")
    def _check_privacy(self) -> Self:
        self.privacy.require_features(self.use_case.features, f"the use case {self.use_case.name}")
        return self
