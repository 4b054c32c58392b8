"""Starts the trainer's background jobs with the configured limits."""

from driftloop.events import RetrainRequested
from trainer.probation import job as probation_job
from trainer.retrain import job as retrain_job
from trainer.retrain.subprocess_job import JobFunction, SubprocessJob
from trainer.settings import TrainerServerSettings


class JobStarter:
    """Starts retrains and probation checks, each in a subprocess with limits of time and memory."""

    def __init__(self, settings: TrainerServerSettings) -> None:
        """Use the limits of ``settings``."""
        self._settings = settings

    def start_retrain(self, retrain: RetrainRequested) -> SubprocessJob:
        """Start the training of an event."""
        return self._start(retrain_job.job_main, retrain.model_dump_json())

    def start_probation_check(self) -> SubprocessJob:
        """Start a check of the version in service."""
        return self._start(probation_job.job_main, "")

    def _start(self, function: JobFunction, argument: str) -> SubprocessJob:
        return SubprocessJob(
            function,
            argument,
            timeout_seconds=self._settings.training_timeout_seconds,
            memory_limit_mb=self._settings.training_memory_limit_mb,
        )
