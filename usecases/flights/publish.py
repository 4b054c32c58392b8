"""Upload the flights to the bucket as the dataset that DVC points to: ``python -m usecases.flights.publish``."""

import sys

from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.command_line import load_settings_or_exit
from driftloop.settings import PREFIX, StorageSettings
from driftloop.storage import dvc
from driftloop.storage.bucket import Bucket
from usecases.flights import usecase
from usecases.flights.dataset import PARQUET


class PublishSettings(BaseSettings):
    """All settings of this command."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    storage: StorageSettings = StorageSettings()


def main() -> str | None:
    """Upload the dataset unless the bucket has it; return an error message, or ``None`` on success."""
    storage = load_settings_or_exit(PublishSettings).storage
    pointer = usecase.dvc_file.read_text()
    md5 = dvc.parse_pointer(pointer).md5
    if Bucket(storage).exists(f"{dvc.REMOTE_PREFIX}/files/md5/{md5[:2]}/{md5[2:]}"):
        return None
    usecase.load_rows()
    pushed = dvc.push(storage, PARQUET)
    if pushed == pointer:
        return None
    return (
        f"{PARQUET} differs from the file that {usecase.dvc_file} points to. Delete it to have it built again, "
        f"or keep it and replace the content of {usecase.dvc_file} by:\n{pushed}"
    )


if __name__ == "__main__":
    sys.exit(main())
