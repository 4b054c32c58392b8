"""The configuration of MLflow's client, and the translation of its errors."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import mlflow
from mlflow.exceptions import MlflowException
from requests import RequestException

from driftloop.errors import RegistryRefused, RegistryUnavailable

# Statuses of a server that works and refuses a request. Other ones mean that it cannot be used now: MLflow reports a
# failed connection as 500, and these of the client's errors ask for another attempt.
PASSING_ERRORS = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}

ENVIRONMENT = {
    # A server that does not answer is asked again at the next poll. By default MLflow retries for ten minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output and error are for the log, one line per event.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def configure_environment() -> None:
    """Set the environment variables of MLflow's client that are not set, for this process and its children.

    Call it before the first request. :class:`~driftloop.registry.model_registry.ModelRegistry` does.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise :class:`RegistryUnavailable` if MLflow's server or its artifact store does not answer in the block.

    An answer that refuses the request raises :class:`RegistryRefused`: to repeat it would not help. Usable as a
    decorator, too.
    """
    try:
        yield
    except MlflowException as error:
        status = error.get_http_status_code()
        if 400 <= status < 500 and status not in PASSING_ERRORS:
            raise RegistryRefused(
                f"MLflow at {mlflow.get_tracking_uri()} (DRIFTLOOP_REGISTRY__URI) refuses it: {error}"
            ) from error
        raise _unavailable(error) from error
    except RequestException as error:
        raise _unavailable(error) from error


def _unavailable(error: Exception) -> RegistryUnavailable:
    return RegistryUnavailable(
        f"no answer from MLflow at {mlflow.get_tracking_uri()} (DRIFTLOOP_REGISTRY__URI): {error}"
    )
