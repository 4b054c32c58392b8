"""Fetched versions on local disk: what served last is there when registry and store are not."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

KEPT = 2  # the version in service and the one before it: a rollback fetches nothing


class Versions:
    """One registered model's versions in a folder, which several processes may share."""

    def __init__(self, folder: Path, fetch: Callable[[str, Path], Path]) -> None:
        """``fetch`` copies a version's files below a folder and returns the model's own; see ``Registry.fetch``."""
        self._folder = folder
        self._fetch = fetch
        self._order = folder / "served"

    def fetch(self, version: str) -> Path:
        """The version's folder; fetched where it is not on disk. Raises what fetching raises, and :class:`OSError`."""
        place = self._folder / version
        if not place.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._folder) as temporary:
                fetched = self._fetch(version, Path(temporary))
                try:
                    fetched.rename(place)  # at once: a version that is there is complete
                except OSError:
                    if not place.exists():  # or else another process was faster
                        raise
        return place

    def last_good(self) -> str | None:
        """The version that served last, where its files are here."""
        served = self._served()
        return served[0] if served and (self._folder / served[0]).exists() else None

    def keep(self, version: str) -> None:
        """The version serves now: it is what :meth:`last_good` names, and old ones are deleted."""
        served = [version, *(old for old in self._served() if old != version)][:KEPT]
        new = self._order.with_suffix(".new")
        new.write_text("\n".join(served))
        new.replace(self._order)
        for place in self._folder.iterdir():
            if place.is_dir() and place.name not in served and not place.name.startswith("."):
                shutil.rmtree(place, ignore_errors=True)

    def _served(self) -> list[str]:
        try:
            return self._order.read_text().split()
        except FileNotFoundError:
            return []
