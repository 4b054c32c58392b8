"""Puts the use case's dataset into the bucket, where DVC looks for it."""

import sys

from driftloop.settings import load
from driftloop.storage import Bucket
from trainer import dataset
from trainer.settings import TrainerSettings
from usecases.flights import usecase
from usecases.flights.dataset import PARQUET


def main() -> str | None:
    """Returns what is wrong, if anything is."""
    storage = load(TrainerSettings).storage
    pointer = usecase.pointer.read_text()
    digest = pointer.split("md5: ")[1].split()[0]
    if Bucket(storage).exists(f"{dataset.DATASETS}/files/md5/{digest[:2]}/{digest[2:]}"):
        return None
    usecase.rows()
    pushed = dataset.push(storage, PARQUET)
    if pushed == pointer:
        return None
    return (
        f"{PARQUET} is not what {usecase.pointer} points to: delete it, and it is built again; "
        f"or keep it and write this to the pointer:\n{pushed}"
    )


if __name__ == "__main__":
    sys.exit(main())
