"""One version and one final state per retrain, although processes are killed during its training.

On the real stack: trainer, training process, registry, bucket and broker are killed at random moments. ``make faults``
runs more kills.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, timedelta
from itertools import cycle, islice

import psutil
import pytest

from driftloop.events import DataSelection, ModelStateChanged, RetrainRequested
from driftloop.kafka import reader
from driftloop.kafka.publisher import Publisher
from driftloop.registry.model_registry import TAG_RETRAIN_ID, TAG_RETRAIN_RESULT
from stack.running import Stack
from tests.support.faults import random_delay
from tests.support.processes import forked_jobs, process_tree
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("FAULTS_KILLS", "2"))
FIRST_DAYS, MORE_DAYS = 30, 15  # each retrain has enough later days for its gate
HOLDOUT_DAYS = 10
MAX_RETRAIN_SECONDS = 240  # with all kills and restarts during the retrain

pytestmark = pytest.mark.timeout(600 + 60 * KILLS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"DRIFTLOOP_GATE__HOLDOUT_DAYS": str(HOLDOUT_DAYS), "DRIFTLOOP_POLICY__ENABLED": "false"}
    with Stack(
        isolated_settings(tmp_path_factory.mktemp("trainer")), print, settings, services_to_start=("trainer",)
    ) as stack:
        yield stack


def test_trainer_finishes_each_retrain_once_with_one_version_after_kills(
    stack: Stack, random_source: random.Random
) -> None:
    retrains = [request_retrain(stack, date(2013, 1, 1) + timedelta(days=FIRST_DAYS))]
    wait_until(lambda: has_finished(stack, retrains[0]), "the first version is trained", seconds=MAX_RETRAIN_SECONDS)
    counts: Counter[str] = Counter()
    injectors = list(islice(cycle(FAULT_INJECTORS), KILLS))
    for number, inject_fault in enumerate(injectors, 1):
        retrains.append(request_retrain(stack, date(2013, 1, 1) + timedelta(days=FIRST_DAYS + MORE_DAYS * number)))
        wait_until(lambda: is_training(stack), "the training runs", seconds=MAX_RETRAIN_SECONDS)
        random_delay(random_source, 10)
        counts[inject_fault.__name__] += 1
        inject_fault(stack)
        wait_until(lambda: has_finished(stack, retrains[-1]), "the retrain has finished", seconds=MAX_RETRAIN_SECONDS)

    final = [change for change in model_states(stack) if change.is_final]
    versions = stack.registry.client.search_model_versions(f"name = '{stack.registry.model}'")
    print(
        f"\n{KILLS} kills: {dict(counts)}; {len(retrains)} retrains, {len(versions)} versions, "
        f"{Counter(change.state for change in final)}"
    )
    assert [change.retrain_id for change in final] == [retrain.id for retrain in retrains]
    assert {change.state for change in final} <= {"promoted", "rejected"}
    assert Counter(version.tags[TAG_RETRAIN_ID] for version in versions) == dict.fromkeys(
        (retrain.id for retrain in retrains), 1
    )
    assert all(TAG_RETRAIN_RESULT in version.tags for version in versions)
    assert stack.registry.champion() == [change.version for change in final if change.state == "promoted"][-1]
    assert not is_training(stack), "a training still runs"


def request_retrain(stack: Stack, end: date) -> RetrainRequested:
    """Request a retrain on the days before ``end``."""
    retrain = RetrainRequested(
        model=stack.registry.model,
        trigger="manual",
        reason=f"up to {end}",
        requested_by="a test",
        data=DataSelection(base_end=end, archive=False),
    )
    with Publisher(stack.kafka, stack.topics, "test") as publisher:
        publisher.publish(retrain)
    return retrain


def model_states(stack: Stack) -> list[ModelStateChanged]:
    """Return all events on the topic of models."""
    return [
        event
        for event in reader.read_last(stack.kafka, stack.topics.models, 10**6)
        if isinstance(event, ModelStateChanged)
    ]


def has_finished(stack: Stack, retrain: RetrainRequested) -> bool | None:
    """Return True if a retrain has finished, else None. Restart a trainer that has exited because of a fault."""
    if not stack.executors["trainer"].running():
        stack.start("trainer")
    return any(change.is_final and change.retrain_id == retrain.id for change in model_states(stack)) or None


def training_processes(stack: Stack) -> list[psutil.Process]:
    """Return the training processes, which the trainer's fork server has started."""
    try:
        return forked_jobs(pid(stack, "trainer"))
    except psutil.NoSuchProcess:
        return []


def pid(stack: Stack, name: str) -> int:
    process = stack.executors[name].process
    assert process is not None
    return process.pid


def is_training(stack: Stack) -> bool | None:
    return bool(training_processes(stack)) or None


def kill_trainer(stack: Stack) -> None:
    trainer = psutil.Process(pid(stack, "trainer"))
    trainer.kill()
    trainer.wait()
    stack.start("trainer")


def kill_training(stack: Stack) -> None:
    for process in training_processes(stack):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def kill_and_restart(name: str) -> Callable[[Stack], None]:
    def kill(stack: Stack) -> None:
        processes = process_tree(pid(stack, name))
        for process in processes:
            process.kill()
        stack.executors[name].kill()
        psutil.wait_procs(processes)
        stack.start(name)

    kill.__name__ = name
    return kill


FAULT_INJECTORS = [
    kill_trainer,
    kill_training,
    kill_and_restart("mlflow"),
    kill_and_restart("gcs"),
    kill_and_restart("kafka"),
]
