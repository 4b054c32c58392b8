"""Start the trainer."""

import threading

from driftloop.command_line import exit_on_invalid_settings, parse_settings
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.publisher import Publisher
from driftloop.kafka.transactional_producer import TransactionalProducer
from driftloop.registry.model_registry import ModelRegistry
from driftloop.service import run_service
from driftloop.storage import dvc
from driftloop.telemetry import tracing
from driftloop.telemetry.background import start_background
from driftloop.telemetry.health import Health
from driftloop.telemetry.logging import configure_logging
from driftloop.telemetry.metrics import configure_metrics
from trainer import alias_metric, metrics
from trainer.alias_metric import AliasMetric
from trainer.api import create_api
from trainer.handler import TrainerHandler
from trainer.job_starter import JobStarter
from trainer.policy.policy_handler import PolicyHandler
from trainer.probation import job as probation_job
from trainer.probation.probation_monitor import ProbationMonitor
from trainer.retrain import job as retrain_job
from trainer.retrain import subprocess_job
from trainer.retrain.queue import RetrainQueue
from trainer.retrain_history import RetrainHistory
from trainer.schedule import Schedule
from trainer.settings import TrainerSettings

DESCRIPTION = "Trains a new version for each retrain event, and promotes it if it passes the gate."
EXAMPLE = "DRIFTLOOP_USE_CASE=usecases.loans:usecase … driftloop-trainer"


def main() -> None:
    """Wire settings, background jobs, broker, registry, policy and API, and run the loop over their events."""
    settings = parse_settings(TrainerSettings, DESCRIPTION, EXAMPLE)
    configure_logging("trainer", settings.log)
    configure_metrics("trainer")
    metrics.initialize()
    with exit_on_invalid_settings():
        subprocess_job.preload(
            [
                *(retrain_job.__name__, probation_job.__name__, "git", "mlflow.pyfunc"),
                *dvc.preload_modules(settings.storage),
            ]
        )
    trainer_settings, use_case, topics = settings.trainer, settings.use_case, settings.topics
    health = Health()
    publisher = Publisher(settings.kafka, topics, "trainer")
    registry = ModelRegistry(settings.registry)
    history = RetrainHistory(settings.kafka, topics)
    starter = JobStarter(trainer_settings)
    schedule = (
        Schedule(trainer_settings.schedule, use_case.timezone, use_case.name, publisher, data=use_case.first_version)
        if trainer_settings.schedule
        else None
    )
    handler = TrainerHandler(
        topics.retrain,
        PolicyHandler(use_case, settings.policy, settings.gate.holdout_days, topics, history),
        RetrainQueue(use_case.name, registry, publisher, history, starter),
        ProbationMonitor(use_case.name, probation_job.Probation(starter, registry, history), publisher),
        schedule,
    )
    group = f"{trainer_settings.group}-{use_case.name}"
    loop = ConsumerLoop(
        create_consumer(settings.kafka, group, settings.instance_id),
        [topics.retrain, topics.models, topics.drift],
        handler,
        TransactionalProducer(settings.kafka, topics, "trainer", f"{group}-{settings.instance_id}"),
        settings.dead_letters,
        health,
    )
    start_background(
        alias_metric.TASK,
        AliasMetric(registry).update,
        health,
        alias_metric.POLL_INTERVAL_SECONDS,
        threading.Event(),
    )
    try:
        with exit_on_invalid_settings(), tracing.tracing_session("trainer", settings.tracing), publisher:
            app = create_api(use_case.name, trainer_settings.api_key, publisher, health, registry, history)
            health.heartbeat()  # the watchdog begins now
            run_service(loop, tracing.instrument_asgi(app), trainer_settings, health)
    finally:
        handler.close()


if __name__ == "__main__":
    main()
