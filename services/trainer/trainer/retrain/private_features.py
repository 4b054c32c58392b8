"""What private features change in a retrain: it leaves the archive out, and no message quotes a value."""

from driftloop.errors import DriftloopError
from driftloop.evaluation.gate import SmokeTestResult
from driftloop.events import RetrainRequested
from driftloop.privacy import FEATURES_SETTING, Privacy


class TrainingFailed(DriftloopError):
    """A dataset or a pipeline has raised an exception; the message does not quote it, as features are private."""


def without_private_archive(retrain: RetrainRequested, privacy: Privacy) -> tuple[RetrainRequested, str]:
    """Return the retrain without the archive if its rows are not what a model takes, and a note that says so."""
    if not (retrain.data.archive and privacy.has_private_features):
        return retrain, ""
    data = retrain.data.model_copy(update={"archive": False})
    return retrain.model_copy(update={"data": data}), f"; the archive is left out: {privacy.archive_note}"


def without_quotes(result: SmokeTestResult, privacy: Privacy) -> SmokeTestResult:
    """Return the result without the words of its error, which may be an exception's and quote rows."""
    if result.error is None or not privacy.has_private_features:
        return result
    hidden = f"it cannot be loaded, or cannot predict; the message may quote values that {FEATURES_SETTING} hides"
    return result.model_copy(update={"error": hidden})
