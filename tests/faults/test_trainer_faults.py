"""One version and one final state a retrain, whatever is killed while it trains.

On the real stack: trainer, training process, registry, bucket and broker are killed at random moments. ``make faults``
does the same more often.
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
from tests.support.processes import process_tree
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("FAULTS_KILLS", "2"))
FIRST_DAYS, MORE_DAYS = 30, 15  # each retrain has enough later days for its gate
HELD_OUT_DAYS = 10
LONGEST_SECONDS = 240  # of a retrain, with all that is killed and begun again

pytestmark = pytest.mark.timeout(600 + 60 * KILLS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"DRIFTLOOP_GATE__HOLDOUT_DAYS": str(HELD_OUT_DAYS), "DRIFTLOOP_POLICY__ENABLED": "false"}
    with Stack(isolated_settings(tmp_path_factory.mktemp("trainer")), print, settings, only=("trainer",)) as stack:
        yield stack


def test_each_retrain_ends_once_and_brings_one_version_whatever_is_killed(
    stack: Stack, random_source: random.Random
) -> None:
    asked = [ask(stack, date(2013, 1, 1) + timedelta(days=FIRST_DAYS))]
    wait_until(lambda: ended(stack, asked[0]), "the first version", seconds=LONGEST_SECONDS)
    counts: Counter[str] = Counter()
    victims = list(islice(cycle(VICTIMS), KILLS))
    for number, victim in enumerate(victims, 1):
        asked.append(ask(stack, date(2013, 1, 1) + timedelta(days=FIRST_DAYS + MORE_DAYS * number)))
        wait_until(lambda: trains(stack), "it trains", seconds=LONGEST_SECONDS)
        random_delay(random_source, 10)
        counts[victim.__name__] += 1
        victim(stack)
        wait_until(lambda: ended(stack, asked[-1]), "its end", seconds=LONGEST_SECONDS)

    final = [change for change in changes(stack) if change.is_final]
    versions = stack.registry.client.search_model_versions(f"name = '{stack.registry.model}'")
    print(
        f"\n{KILLS} kills: {dict(counts)}; {len(asked)} retrains, {len(versions)} versions, "
        f"{Counter(change.state for change in final)}"
    )
    assert [change.retrain_id for change in final] == [retrain.id for retrain in asked]
    assert {change.state for change in final} <= {"promoted", "rejected"}
    assert Counter(version.tags[TAG_RETRAIN_ID] for version in versions) == dict.fromkeys((one.id for one in asked), 1)
    assert all(TAG_RETRAIN_RESULT in version.tags for version in versions)
    assert stack.registry.champion() == [change.version for change in final if change.state == "promoted"][-1]
    assert not trains(stack), "a training went on"


def ask(stack: Stack, end: date) -> RetrainRequested:
    """Asks for a retrain on the days before ``end``."""
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


def changes(stack: Stack) -> list[ModelStateChanged]:
    """Everything on the topic of models."""
    return [
        event
        for event in reader.read_last(stack.kafka, stack.topics.models, 10**6)
        if isinstance(event, ModelStateChanged)
    ]


def ended(stack: Stack, retrain: RetrainRequested) -> bool | None:
    """Whether a retrain is over. A trainer that has ended, as it may while the broker is away, is started again."""
    if not stack.executors["trainer"].running():
        stack.start("trainer")
    return any(change.is_final and change.retrain_id == retrain.id for change in changes(stack)) or None


def training(stack: Stack) -> list[psutil.Process]:
    """The processes that train: those that the trainer's server of processes has forked."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in process_tree(pid(stack, "trainer"))[1:]:
            with suppress(psutil.NoSuchProcess):
                if process.nice() > 0 and "forkserver" in " ".join(process.cmdline()):
                    found.append(process)
    return found


def pid(stack: Stack, name: str) -> int:
    process = stack.executors[name].process
    assert process is not None
    return process.pid


def trains(stack: Stack) -> bool | None:
    return bool(training(stack)) or None


def the_trainer(stack: Stack) -> None:
    trainer = psutil.Process(pid(stack, "trainer"))
    trainer.kill()
    trainer.wait()
    stack.start("trainer")


def its_training(stack: Stack) -> None:
    for process in training(stack):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _again(name: str) -> Callable[[Stack], None]:
    def kill(stack: Stack) -> None:
        family = process_tree(pid(stack, name))
        for process in family:
            process.kill()
        stack.executors[name].kill()
        psutil.wait_procs(family)
        stack.start(name)

    kill.__name__ = name
    return kill


VICTIMS = [the_trainer, its_training, _again("mlflow"), _again("gcs"), _again("kafka")]
