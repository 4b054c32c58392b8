"""The registered model in MLflow: its versions, its aliases and what retrains record about them.

All functions raise :class:`~driftloop.errors.RegistryUnavailable` when MLflow does not answer, and
:class:`~driftloop.errors.RegistryRefused` when it answers that it does not do what is asked.
"""

import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from driftloop.errors import Rejected
from driftloop.events import ModelStateChanged, now
from driftloop.registry.client import configure_environment, translate_errors
from driftloop.registry.loading import LoadedModel, download_model, load_model, reject_missing
from driftloop.settings import RegistrySettings

ALIAS_PREVIOUS = "previous"  # the version that was in service before
ALIAS_CHALLENGER = "challenger"  # the version that was registered last and has not been promoted
TAG_RETRAIN_ID = "retrain_id"
TAG_COMPARED_WITH = "compared_with"  # the champion that the gate compared the version with; a first one has no such tag
TAG_IN_SERVICE_SINCE = "in_service_since"  # when the alias moved to the version last; it outlives the alias
TAG_RESULT = "result"  # the version's last state, in one word
# Events as JSON, for programs. MLflow's pages sort tags by name: these come after those that people read.
TAG_RETRAIN_RESULT = "state_of_retrain_json"
TAG_ROLLED_BACK = "state_rolled_back_json"
# In a description, which MLflow shows as Markdown.
DRIFT_LINK = re.compile(r"\[Drift of this version\]\((?P<url>\S+)\)")
TAG_LAST_CHAMPION = "last_champion"  # of the registered model: it outlives the alias
HAVE_SERVED = ("promoted", "rolled_back")  # values of TAG_RESULT of versions that had the alias
PARAM_TRAINED_THROUGH = "trained_through"  # of a run


class VersionDescription(NamedTuple):
    """A version's description in its parts."""

    text: str
    """What it says; without Markdown."""
    drift_url: str | None
    """The pages of the version's drift; None without a link to them."""


def parse_description(description: str) -> VersionDescription:
    """Take apart a description as :meth:`ModelRegistry.describe` writes it."""
    link = DRIFT_LINK.search(description)
    paragraphs = (paragraph.strip() for paragraph in DRIFT_LINK.sub("", description).split("\n\n"))
    return VersionDescription("\n".join(filter(None, paragraphs)), link["url"] if link else None)


class RegisteredVersion(NamedTuple):
    """A version with what tells it from another one of the same number, of a model that was deleted and made again."""

    number: str
    run_id: str
    """The run that logged it; of a version without one the logged model, or else the time of its registration."""


class VersionOrigin(NamedTuple):
    """Where a version comes from."""

    run_id: str
    """The run that logged it; empty if MLflow does not say."""
    user: str
    """The user whose run it is; empty if MLflow does not say."""
    created: datetime
    """When it was registered, which is after its training."""


class AliasChanging(Rejected):
    """Another change of the alias is under way, or was faster; nothing has changed."""


class AliasMissing(Rejected):
    """The model has had a version in service, and no version has the alias any more."""


class ModelRegistry:
    """One registered model and the alias that names its version in service."""

    def __init__(self, settings: RegistrySettings) -> None:
        """Configure MLflow's client; nothing is requested yet.

        MLflow resolves addresses with one server per process, so a process can have one registry only.
        """
        configure_environment()
        self.model = settings.model
        self.alias = settings.alias
        self.trusted_types = settings.trusted_types
        self._drift_pages_url = settings.drift_pages_url
        mlflow.set_tracking_uri(settings.uri)
        mlflow.set_registry_uri(settings.uri)
        self.client = MlflowClient(tracking_uri=settings.uri, registry_uri=settings.uri)
        self._alias_lock = threading.RLock()

    def champion(self) -> str | None:
        """Return the version in service, or ``None`` while there is none."""
        return self.version_for_alias(self.alias)

    def identified_champion(self) -> RegisteredVersion | None:
        """Return the version in service with its run, or ``None`` while there is none."""
        found = self._find_alias(self.alias)
        return None if found is None else identify(found)

    @translate_errors()
    def identified(self, version: str) -> RegisteredVersion:
        """Return a version with its run.

        Raises:
            ModelFilesUnreadable: There is no such version.
        """
        with reject_missing():
            return identify(self.client.get_model_version(self.model, version))

    def previous(self) -> str | None:
        """Return the version that was in service before, or ``None`` if there is none to roll back to."""
        return self.version_for_alias(ALIAS_PREVIOUS)

    def champion_unless_first(self) -> str | None:
        """Return the version in service, or ``None`` if the model has never had one.

        Raises:
            AliasMissing: It has had one. Another version must not follow it without a comparison.
        """
        champion = self.champion()
        if champion is None and (last := self.last_champion()) is not None:
            versions = self.versions()
            known = f"version {last}" if last in versions else f"version {last}, which the registry no longer has"
            choice = last if last in versions else "VERSION"
            raise AliasMissing(
                f"no version of {self.model} has the alias {self.alias} any more, and {known}, was in service: set it "
                f"again with driftloop rollback --to {choice} (the versions are {', '.join(versions) or 'all deleted'})"
            )
        return champion

    @translate_errors()
    def last_champion(self) -> str | None:
        """Return the version that had the alias last, whether or not it still has it; ``None`` if there was none.

        It is noted whenever driftloop moves the alias, and when a trainer sees that somebody else has.
        """
        try:
            noted = self.client.get_registered_model(self.model).tags.get(TAG_LAST_CHAMPION)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise
        if noted:
            return str(noted)
        served = [version for version in self._search_versions() if version.tags.get(TAG_RESULT) in HAVE_SERVED]
        return max((str(version.version) for version in served), key=int, default=None)

    @translate_errors()
    def note_champion(self, version: str) -> None:
        """Note that a version has the alias, for :meth:`last_champion`."""
        self.client.set_registered_model_tag(self.model, TAG_LAST_CHAMPION, version)

    @contextmanager
    def changing_alias(self, *, wait: bool = True) -> Iterator[None]:
        """Let no other thread of this process change the alias in the block.

        Raises:
            AliasChanging: Another one does, and ``wait`` is false.
        """
        if not self._alias_lock.acquire(blocking=wait):
            raise AliasChanging(f"another change of the alias {self.alias} of {self.model} is under way")
        try:
            yield
        finally:
            self._alias_lock.release()

    def version_for_alias(self, alias: str) -> str | None:
        """Return the version that an alias names, or ``None`` if the alias or the model does not exist."""
        found = self._find_alias(alias)
        return None if found is None else str(found.version)

    @translate_errors()
    def _find_alias(self, alias: str) -> ModelVersion | None:
        try:
            return self.client.get_model_version_by_alias(self.model, alias)
        except MlflowException as error:
            if error.error_code in (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), "INVALID_PARAMETER_VALUE"):
                return None  # the model does not exist yet, or it has no such alias
            raise

    @translate_errors()
    def create_version(self, source: str, retrain_id: str, tags: Mapping[str, str]) -> str:
        """Register a logged model as a new version and as the challenger; return its number.

        Args:
            source: MLflow's address of the logged model.
            retrain_id: The retrain, or the adoption, that the version comes from.
            tags: Further tags of the version.
        """
        version = str(mlflow.register_model(source, self.model, tags={TAG_RETRAIN_ID: retrain_id, **tags}).version)
        self.client.set_registered_model_alias(self.model, ALIAS_CHALLENGER, version)
        return version

    @translate_errors()
    def record_result(self, version: str, change: ModelStateChanged) -> None:
        """Store the result of the version's retrain as its description and as tags, where MLflow's UI shows it."""
        self.describe(version, f"{change.state}: {change.explanation}")
        self.client.set_model_version_tag(self.model, version, TAG_RESULT, change.state)
        self.client.set_model_version_tag(self.model, version, TAG_RETRAIN_RESULT, change.model_dump_json())

    @translate_errors()
    def recorded_result(self, retrain_id: str) -> ModelStateChanged | None:
        """Return the result that :meth:`record_result` stored for a retrain, or ``None`` if there is none yet."""
        for version in self._versions_of_retrain(retrain_id):
            if TAG_RETRAIN_RESULT in version.tags:
                return ModelStateChanged.model_validate_json(version.tags[TAG_RETRAIN_RESULT])
        return None

    @translate_errors()
    def traceparent(self, version: str) -> str | None:
        """Return the span of the version's retrain, or ``None`` if it was not traced or has not ended."""
        result = self.client.get_model_version(self.model, version).tags.get(TAG_RETRAIN_RESULT)
        return ModelStateChanged.model_validate_json(result).traceparent if result else None

    @translate_errors()
    def delete_unfinished(self, retrain_id: str) -> None:
        """Delete the versions and end the runs of a retrain that was killed before it recorded its result.

        The retrain starts over, and must not leave two versions.
        """
        for version in self._versions_of_retrain(retrain_id):
            if TAG_RETRAIN_RESULT not in version.tags:
                self.client.delete_model_version(self.model, version.version)
        experiment = self.client.get_experiment_by_name(self.model)
        if experiment is not None:
            unfinished = f"tags.{TAG_RETRAIN_ID} = '{retrain_id}' and attributes.status = 'RUNNING'"
            for run in self.client.search_runs([experiment.experiment_id], unfinished):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _versions_of_retrain(self, retrain_id: str) -> list[ModelVersion]:
        return self._search_versions(f" and tags.{TAG_RETRAIN_ID} = '{retrain_id}'")

    def _search_versions(self, condition: str = "") -> list[ModelVersion]:
        # MLflow's filters have no escape sequences. So a name with one kind of quotes stands in the other kind;
        # driftloop.setting_values refuses names with both.
        quote = '"' if "'" in self.model else "'"
        return list(self.client.search_model_versions(f"name = {quote}{self.model}{quote}{condition}"))

    @translate_errors()
    def trained_through(self, version: str) -> pd.Timestamp:
        """Return the time of the latest row that a version was trained on; 1970 if its run does not say."""
        run_id = self.client.get_model_version(self.model, version).run_id
        value = self.client.get_run(run_id).data.params.get(PARAM_TRAINED_THROUGH) if run_id else None
        return pd.Timestamp(value or 0, tz=None if value else "UTC")

    @translate_errors()
    def origin(self, version: str) -> VersionOrigin:
        """Return where a version comes from, as far as MLflow says."""
        found = self.client.get_model_version(self.model, version)
        user = self.client.get_run(found.run_id).data.tags.get("mlflow.user", "") if found.run_id else ""
        return VersionOrigin(found.run_id or "", user, datetime.fromtimestamp(found.creation_timestamp / 1000, UTC))

    @translate_errors()
    def describe(self, version: str, text: str) -> None:
        """Set a version's description, which MLflow's UI shows, with a link to the pages of its drift."""
        if self._drift_pages_url:
            query = urlencode({"model": self.model, "version": version})
            text += f"\n\n[Drift of this version]({self._drift_pages_url.rstrip('/')}/?{query})"
        self.client.update_model_version(self.model, version, text)

    @translate_errors()
    def promote(self, version: str) -> None:
        """Move the alias to a version; predictors serve it after their next poll.

        The alias of the previous version moves first, so that there is always a version to roll back to. A version that
        serves is no challenger any more.
        """
        with self.changing_alias():
            champion = self.champion()
            if champion not in (None, version):
                self.client.set_registered_model_alias(self.model, ALIAS_PREVIOUS, champion)
            self.note_champion(version)
            self.client.set_registered_model_alias(self.model, self.alias, version)
            self._note_in_service(version, "promoted again")

    @translate_errors()
    def promote_challenger(self, version: str) -> None:
        """Move the alias to a version that has passed the gate, unless it has had the alias before.

        So the alias moves once for a retrain whose event is delivered again, and a rollback in between stays.

        Raises:
            AliasChanging: Another version is in service by now than the one that this one was compared with.
        """
        with self.changing_alias():
            tags, champion = self.version_tags(version), self.champion()
            # The second tag is for a process that was killed after the alias had moved and before it set the first one.
            if TAG_IN_SERVICE_SINCE in tags or TAG_ROLLED_BACK in tags:
                return
            compared_with = tags.get(TAG_COMPARED_WITH)
            if champion not in (version, compared_with):
                raise AliasChanging(
                    f"version {version} was compared with {_describe(compared_with)}, and {_describe(champion)} is in "
                    "service by now: request the retrain again"
                )
            self.promote(version)

    @translate_errors()
    def apply_rollback(self, version: str | None, change: ModelStateChanged) -> None:
        """Move the alias from ``version`` back to the version that ``change`` names.

        The rollback is recorded on ``version`` before the alias moves, so that a process that is killed in between can
        publish it after a restart. The previous version's alias is deleted: nothing leads back to ``version``. Without
        ``version``, nothing has the alias: it is set again.

        Raises:
            AliasChanging: Another version than ``version`` has the alias by now.
        """
        if change.version is None:
            raise ValueError("the change names no version to roll back to")
        with self.changing_alias():
            if (champion := self.champion()) != version:
                raise AliasChanging(f"the alias {self.alias} of {self.model} has moved to {champion or 'no version'}")
            if version is not None:
                self._append_to_description(version, f"{change.state}: {change.explanation}")
                self.client.set_model_version_tag(self.model, version, TAG_RESULT, change.state)
                self.client.set_model_version_tag(self.model, version, TAG_ROLLED_BACK, change.model_dump_json())
            self.note_champion(change.version)
            self.client.set_registered_model_alias(self.model, self.alias, change.version)
            if version is not None or self.previous() == change.version:
                self.client.delete_registered_model_alias(self.model, ALIAS_PREVIOUS)
            self._note_in_service(change.version, f"in service again: {change.explanation}")

    def _note_in_service(self, version: str, note: str) -> None:
        """Note on a version that the alias has moved to it; undo what says that it does not serve.

        That is its alias as the challenger, and its last rollback.

        Args:
            version: The version.
            note: Ends the description if that ended with a rollback.
        """
        if self.version_for_alias(ALIAS_CHALLENGER) == version:
            self.client.delete_registered_model_alias(self.model, ALIAS_CHALLENGER)
        if TAG_ROLLED_BACK in self.client.get_model_version(self.model, version).tags:
            self._append_to_description(version, note)
            self.client.set_model_version_tag(self.model, version, TAG_RESULT, "promoted")
            self.client.delete_model_version_tag(self.model, version, TAG_ROLLED_BACK)
        self.client.set_model_version_tag(self.model, version, TAG_IN_SERVICE_SINCE, now().isoformat())

    def _append_to_description(self, version: str, paragraph: str) -> None:
        description = self.client.get_model_version(self.model, version).description or ""
        self.client.update_model_version(self.model, version, f"{description}\n\n{paragraph}".strip())

    @translate_errors()
    def recorded_rollbacks(self) -> list[ModelStateChanged]:
        """Return the last rollback of each version that has not been put into service again since."""
        tags = [version.tags[TAG_ROLLED_BACK] for version in self._search_versions() if TAG_ROLLED_BACK in version.tags]
        return [ModelStateChanged.model_validate_json(tag) for tag in tags]

    @translate_errors()
    def exists(self) -> bool:
        """Return whether the registry has the model, with or without versions."""
        try:
            self.client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return False
            raise
        return True

    @translate_errors()
    def model_names(self) -> list[str]:
        """Return the names of all registered models of the server, sorted."""
        names: list[str] = []
        token: str | None = None
        while token != "":
            page = self.client.search_registered_models(page_token=token)
            names += [model.name for model in page]
            token = page.token or ""
        return sorted(names)

    @translate_errors()
    def versions(self) -> list[str]:
        """Return all versions in ascending order."""
        return [str(number) for number in sorted(int(version.version) for version in self._search_versions())]

    @translate_errors()
    def version_tags(self, version: str) -> dict[str, str]:
        """Return the tags of a version."""
        return dict(self.client.get_model_version(self.model, version).tags)

    @translate_errors()
    def dataset_checksums(self) -> dict[str, str]:
        """Return the checksum of the dataset of each version whose retrain has recorded it."""
        found = {}
        for version in self._search_versions():
            if TAG_RETRAIN_RESULT in version.tags:
                change = ModelStateChanged.model_validate_json(version.tags[TAG_RETRAIN_RESULT])
                if change.dataset_md5:
                    found[str(version.version)] = change.dataset_md5
        return found

    @translate_errors()
    def retrain_id_of(self, version: str) -> str:
        """Return the id of the retrain that a version comes from, or an empty string if it comes from none."""
        return str(self.client.get_model_version(self.model, version).tags.get(TAG_RETRAIN_ID, ""))

    def load(self, version: str) -> LoadedModel:
        """Download and load a version; see :meth:`fetch` and :func:`~driftloop.registry.loading.load_model`."""
        with tempfile.TemporaryDirectory(prefix="driftloop-model-") as folder:
            return load_model(self.fetch(version, Path(folder)), self.trusted_types)

    def fetch(self, version: str, into: Path) -> Path:
        """Download a version's files below the folder ``into`` and return the model's own folder.

        Raises:
            ModelRejected: The registry answers, but has no such version or no files of it.
            RegistryUnavailable: The registry or the artifact store does not answer.
        """
        return download_model(self._address_of_files(version), into)

    @translate_errors()
    def _address_of_files(self, version: str) -> str:
        # An address such as models:/name/1 cannot name every model: MLflow parses its ? and @.
        with reject_missing():
            return str(self.client.get_model_version_download_uri(self.model, version))


def _describe(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def identify(version: ModelVersion) -> RegisteredVersion:
    """Return a version's number and run."""
    run_id = version.run_id or version.model_id or f"registered-{version.creation_timestamp}"
    return RegisteredVersion(str(version.version), run_id)
