"""Whether the version in service was made with the predictor's privacy settings; else not all columns are compared."""

from typing import Protocol

import structlog

from driftloop.errors import RegistryRefused, RegistryUnavailable
from driftloop.privacy import Privacy
from driftloop.registry.model_registry import RegisteredVersion
from driftloop.registry.recorded_privacy import describe_difference
from driftloop.telemetry.health import Health

log = structlog.get_logger(__name__)


class TagReader(Protocol):
    """Reads the tags of versions."""

    def version_tags(self, version: str) -> dict[str, str]:
        """Return the tags of a version."""


class PrivacyRecordCheck:
    """Warns in readiness while the version in service has another record than the settings."""

    def __init__(self, registry: TagReader, privacy: Privacy, health: Health) -> None:
        """Start without a version."""
        self._registry = registry
        self._policy = privacy.feature_policy
        self._health = health
        self._checked: RegisteredVersion | None = None

    def check(self, version: RegisteredVersion) -> None:
        """Compare the record of the version in service, once; if the registry does not answer, at the next call."""
        if version == self._checked:
            return
        try:
            difference = describe_difference(self._registry.version_tags(version.number), self._policy)
        except (RegistryRefused, RegistryUnavailable):  # the alias or the pinned version is reported elsewhere
            return
        self._checked = version
        if difference is None:
            self._health.clear_warning("privacy")
            return
        log.warning("model.privacy_differs", version=version.number, reason=difference)
        self._health.add_warning("privacy", f"version {version.number}: {difference}")
