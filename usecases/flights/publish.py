"""Puts the flights into the bucket, where DVC looks for them: ``python -m usecases.flights.publish``."""

import sys

from pydantic_settings import BaseSettings, SettingsConfigDict

from driftloop.command_line import load_settings_or_exit
from driftloop.settings import PREFIX, StorageSettings
from driftloop.storage import dvc
from driftloop.storage.bucket import Bucket
from usecases.flights import usecase
from usecases.flights.dataset import PARQUET


class PublishSettings(BaseSettings):
    """Everything that this command reads from the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", frozen=True)

    storage: StorageSettings = StorageSettings()


def main() -> str | None:
    """Returns what is wrong, if anything is."""
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
        f"{PARQUET} is not what {usecase.dvc_file} points to: delete it, and it is built again; "
        f"or keep it and write this to the pointer:\n{pushed}"
    )


if __name__ == "__main__":
    sys.exit(main())
