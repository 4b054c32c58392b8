"""Labelled rows of the archive, and a version's predictions for them: for ``driftloop shadow`` and ``challenge``."""

import pandas as pd

from driftloop.errors import Rejected
from driftloop.evaluation.metrics import FloatArray
from driftloop.registry.loading import LoadedModel
from driftloop.storage import labelled_archive
from driftloop.storage.labelled_archive import ArchiveQuery
from driftloop.storage.object_store import ObjectStore
from driftloop.usecase import UseCase
from driftloop.usecase_setting import UseCaseSetting
from driftloop_cli.settings import StorageCliSettings


class ArchivedFeaturesHidden(Rejected):
    """Archived rows are not what a version takes; the message names the setting."""


class ArchivedRowsSettings(StorageCliSettings):
    """Settings of commands that score archived rows."""

    use_case: UseCaseSetting


def read_labelled_rows(settings: ArchivedRowsSettings, query: ArchiveQuery) -> pd.DataFrame:
    """Return the rows of the archive that match and whose outcome is one that the use case knows, ordered by time.

    Raises:
        ArchivedFeaturesHidden: Privacy settings hide features from the archive.
    """
    use_case = settings.use_case
    if note := settings.privacy.privacy.archive_note:
        raise ArchivedFeaturesHidden(f"a version cannot predict archived rows: {note}")
    with labelled_archive.open_archive(
        ObjectStore(settings.storage).require_answer(), settings.topics, use_case, query=query
    ) as archive:
        return archive.read(query)


def predict_rows(use_case: UseCase, model: LoadedModel, rows: pd.DataFrame) -> FloatArray:
    """Return a model's predictions for rows, as metrics take them."""
    features = rows[model.signature.inputs.input_names()]
    return use_case.target_type.predict(model.estimator, model.predict_fn, features)
