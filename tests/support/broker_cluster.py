"""A stack whose Kafka is three brokers, each with a copy of everything, of which two take part in each write."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mirakuru.exceptions import ProcessFinishedWithError

from driftloop.settings import KafkaSettings
from stack import kafka
from stack.running import Stack
from stack.settings import StackSettings
from tests.support.ports import reserve_ports

BROKERS = ("kafka-1", "kafka-2", "kafka-3")
PROPERTIES = """
node.id={node}
controller.quorum.voters={voters}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


class ReplicatedStack(Stack):
    """Kafka of three brokers, the GCS server and MLflow, without services."""

    def __init__(self, settings: StackSettings) -> None:
        """Describe the stack; entering it starts it."""
        ports, controller_ports = reserve_ports(len(BROKERS)), reserve_ports(len(BROKERS))
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        extra = {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": addresses, "DRIFTLOOP_TOPICS__REPLICATION_FACTOR": "3"}
        super().__init__(settings, print, extra, services_to_start=())
        self.kafka = KafkaSettings(bootstrap_servers=addresses)
        self.topics = self.topics.model_copy(update={"replication_factor": len(BROKERS)})
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in enumerate(controller_ports, 1))
        cluster_id = kafka.new_cluster_id()
        del self.components["kafka"]
        for node, (name, port, controller_port) in enumerate(zip(BROKERS, ports, controller_ports, strict=True), 1):
            self.components[name] = kafka.kafka_component(
                self.folder / name, port, controller_port, PROPERTIES.format(node=node, voters=voters), cluster_id
            )

    def start(self, name: str) -> None:
        """Start a component, or with ``kafka`` all brokers at once: none is ready before two of them run."""
        if name != "kafka":
            super().start(name)
            return
        self.start_brokers(*BROKERS)

    def stop(self) -> None:
        """Stop everything. Brokers are killed: the last ones would wait for a controller, which needs two of them."""
        self.kill_brokers(*(name for name in BROKERS if name in self.executors))
        super().stop()

    def start_brokers(self, *names: str) -> None:
        """Start brokers at once, and wait until they are ready."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(super().start, names))

    def kill_brokers(self, *names: str) -> None:
        """Kill brokers."""
        for name in names:
            with suppress(ProcessFinishedWithError):
                self.executors[name].kill()
