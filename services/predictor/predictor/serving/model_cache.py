"""A cache of model versions on local disk, so that the predictor can start while the registry is unavailable."""

import json
import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from driftloop.registry.model_registry import RegisteredVersion

MAX_CACHED = 2  # the version in service and the one before it: a rollback downloads nothing
DIGEST_CHARACTERS = 12


class ModelCache:
    """The cached versions of one registered model, in a folder that several processes may share.

    A version's folder is named by its number and its run: after the model was deleted and made again, a version with
    the same number is another one.
    """

    def __init__(self, folder: Path, fetch: Callable[[str, Path], Path]) -> None:
        """Create the cache.

        Args:
            folder: Where versions are stored; it is created when the first version is fetched.
            fetch: Copies a version's files below a folder and returns the model's own folder, as
                :meth:`ModelRegistry.fetch` does.
        """
        self._folder = folder
        self._fetch = fetch
        self._served_file = folder / "served"

    def fetch(self, version: RegisteredVersion) -> Path:
        """Return the version's folder; download it first if it is not cached.

        Raises:
            OSError: The folder cannot be written. Exceptions of the download pass through, too.
        """
        version_dir = self._version_dir(version)
        if not version_dir.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._folder) as temporary:
                fetched = self._fetch(version.number, Path(temporary))
                try:
                    fetched.rename(version_dir)  # atomic: a folder that exists is complete
                except OSError:
                    if not version_dir.exists():  # otherwise another process was faster
                        raise
        return version_dir

    def discard(self, version: RegisteredVersion) -> None:
        """Delete a version's files, which cannot be loaded, so that the next :meth:`fetch` downloads them again."""
        shutil.rmtree(self._version_dir(version), ignore_errors=True)

    def last_served(self) -> RegisteredVersion | None:
        """Return the version that served last; ``None`` if there is none or if its files are missing."""
        served = self._served_versions()
        return served[0] if served and self._version_dir(served[0]).exists() else None

    def mark_served(self, version: RegisteredVersion) -> None:
        """Record that ``version`` serves now, and delete all but the :data:`MAX_CACHED` versions that served last."""
        served = [version, *(other for other in self._served_versions() if other != version)][:MAX_CACHED]
        temporary = self._served_file.with_suffix(".new")
        temporary.write_text("\n".join(map(json.dumps, served)))
        temporary.replace(self._served_file)
        kept = {self._version_dir(other) for other in served}
        for path in self._folder.iterdir():
            if path.is_dir() and path not in kept and not path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)

    def _version_dir(self, version: RegisteredVersion) -> Path:
        digest = sha256(version.run_id.encode()).hexdigest()[:DIGEST_CHARACTERS]
        return self._folder / (f"{version.number}-{digest}" if version.run_id else version.number)

    def _served_versions(self) -> list[RegisteredVersion]:
        """Return the versions that served, the latest first; none if the file is not readable."""
        try:
            return [RegisteredVersion(*json.loads(line)) for line in self._served_file.read_text().splitlines()]
        except (FileNotFoundError, TypeError, ValueError):
            return []
