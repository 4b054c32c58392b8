"""What ``driftloop import`` reads from the environment: the use case, whose module imports pandas."""

from driftloop.usecase_setting import UseCaseSetting
from driftloop_cli.settings import StorageCliSettings


class ImportSettings(StorageCliSettings):
    """Settings of ``driftloop import predictions``."""

    use_case: UseCaseSetting
