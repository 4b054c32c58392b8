"""An object store in a folder, for tests that need no server."""

from pathlib import Path

from driftloop.settings import StorageSettings
from driftloop.storage.object_store import ObjectStore


def folder_store(folder: Path) -> ObjectStore:
    """Create a folder if it does not exist, and return the store in it."""
    folder.mkdir(parents=True, exist_ok=True)
    return ObjectStore(StorageSettings(url=folder.as_uri()))
