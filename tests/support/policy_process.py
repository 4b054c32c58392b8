"""A broker and a process of the policy handler that is killed at chosen steps, without Kafka."""

from collections.abc import Iterable, Iterator
from functools import partial

from driftloop.events import Event
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit
from driftloop.settings import TopicsSettings
from driftloop.usecase import UseCase
from trainer.policy.policy_handler import PolicyHandler
from trainer.policy.settings import PolicySettings


class ProcessKilled(Exception):
    """The process is killed."""


class Broker:
    """Topics, committed offsets, and the steps at which the process that uses them is killed."""

    def __init__(self, kills: Iterable[int] = ()) -> None:
        """Start with empty topics; ``kills`` are the steps."""
        self.topics: dict[str, list[Event]] = {"drift": [], "models": [], "retrain": []}
        self.committed = {"drift": 0, "models": 0}
        self.kills = set(kills)
        self.steps = 0

    def step(self) -> None:
        """Count a step, at which the process may be killed."""
        self.steps += 1
        if self.steps in self.kills:
            raise ProcessKilled

    def policy_events(self) -> Iterator[Event]:
        """Yield all events so far."""
        for topic in ("retrain", "models", "drift"):
            self.step()
            yield from list(self.topics[topic])

    def commit(self, commits: Iterable[Commit]) -> None:
        """Commit offsets and events: all or nothing."""
        commits = list(commits)
        self.step()
        for commit in commits:
            self.committed[commit.topic] = max(self.committed[commit.topic], commit.offset)
            self.topics["retrain"] += commit.events
        self.step()


class Process:
    """The consumer loop over all three topics, which starts again whenever it is killed."""

    def __init__(self, broker: Broker, use_case: UseCase, policy: PolicySettings, holdout_days: int) -> None:
        """Start a process."""
        self.broker = broker
        self._new_handler = partial(PolicyHandler, use_case, policy, holdout_days, TopicsSettings(), broker)
        self.start()

    def start(self) -> None:
        """Start again at the committed offsets."""
        self.policy_handler = self._new_handler()
        self.position = {**self.broker.committed, "retrain": 0}

    def catch_up(self) -> None:
        """Read all topics to their ends."""
        while True:
            try:
                for topic, at in self.position.items():
                    for offset in range(at, len(self.broker.topics[topic])):
                        message = ConsumedMessage(topic, 0, offset, self.broker.topics[topic][offset], offset)
                        self.broker.step()
                        self.broker.commit(self.policy_handler.handle(message))
                        self.position[topic] = offset + 1
                return
            except ProcessKilled:
                self.start()
