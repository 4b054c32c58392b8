"""Start the stack for two models, with a proxy in each connection between two parts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from driftloop.events import DataSelection
from stack import kafka, services
from stack.running import Stack, StackStartError
from stack.settings import StackSettings
from tests.support import regression_usecase
from tests.support.chaos.jumping_clock import JumpingClock
from tests.support.chaos.system import (
    FLIGHTS_PREDICTOR,
    RENTALS_PREDICTOR,
    SECOND_WORKER,
    SESSION_TIMEOUT_SECONDS,
    START_SECONDS,
    Log,
    System,
    base_end,
)
from tests.support.ports import reserve_ports
from tests.support.running_stack import RENTALS, isolated_settings
from tests.support.small_disk import NoSmallDisk, mounted_disk
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

LINKS = (
    *(("predictor", "kafka"), ("predictor", "mlflow")),
    *(("trainer", "kafka"), ("trainer", "mlflow"), ("trainer", "gcs")),
    *(("drift_worker", "kafka"), ("drift_worker", "gcs"), ("mlflow", "gcs")),
)
"""Who connects to whom. The predictors share their links, and so do the trainers."""
PARTITIONS = 2
HOLDOUT_DAYS = 10
IDLE_TIMEOUT_SECONDS = 5
DISK_MB = {RENTALS_PREDICTOR: 64, "trainer": 1_024, "kafka": 2_048}


@contextmanager
def running_system(folder: Path, log: Log, *, with_faults: bool = True) -> Iterator[System]:
    """Start the stack for two models, train the first versions, and stop it at the end.

    Args:
        folder: The stack's data folder, which is emptied.
        log: Receives lines of progress.
        with_faults: Whether there is a proxy in each link, and small disks; proxies cost the processors something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = isolated_settings(folder, RENTALS)
    extra = {
        regression_usecase.POINTER_VARIABLE: str(folder / "rentals.parquet.dvc"),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": str(IDLE_TIMEOUT_SECONDS),
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": str(HOLDOUT_DAYS),
        "DRIFTLOOP_POLICY__ENABLED": "false",  # the retrains are this program's own
        "DRIFTLOOP_KAFKA__SESSION_TIMEOUT_SECONDS": str(SESSION_TIMEOUT_SECONDS),
        "DRIFTLOOP_TOPICS__PARTITIONS": str(PARTITIONS),
    }
    stack = Stack(settings, log, extra, reset=True)
    stack.topics = stack.topics.model_copy(update={"partitions": PARTITIONS})
    stack.components.pop("prometheus", None)
    clock = JumpingClock(folder)
    with ExitStack() as parts:
        disks, links = {}, {}
        if with_faults:
            disks = _mount_disks(settings, parts, log)
            links = _insert_proxies(stack, disks, clock)
        proxies = {link: parts.enter_context(TcpProxy(port, target)) for link, (port, target) in links.items()}
        parts.enter_context(stack)
        for served in stack.use_cases:
            first = stack.retrain(
                "the first version",
                DataSelection(base_end=base_end(served.name, 0), archive=False),
                lambda change: log(f"{change.model}: {change.state}: {change.explanation}"),
                served.name,
            )
            if first.state != "promoted":
                raise StackStartError(f"no first version of {served.name}: {first.explanation}")
        system = System(stack, proxies, log, disks, clock)
        parts.callback(system.audit.close)
        for name in (FLIGHTS_PREDICTOR, RENTALS_PREDICTOR):
            wait_until(lambda name=name: system.predict(name), f"{name} answers", START_SECONDS)  # type: ignore[misc]
        yield system


def _mount_disks(settings: StackSettings, parts: ExitStack, log: Log) -> dict[str, Path]:
    """Mount small disks for the second model's outbox, the first trainer's scratch and the broker, where allowed."""
    # Short: the trainer's processes have sockets in it, whose paths may have 107 bytes.
    scratch = parts.enter_context(TemporaryDirectory(prefix="scratch-"))
    disks = {
        RENTALS_PREDICTOR: services.predictor_folder(settings) / "rentals",
        "trainer": Path(scratch),
        "kafka": settings.stack.data_dir.resolve() / "kafka",
    }
    try:
        for name, disk in disks.items():
            disk.mkdir(parents=True, exist_ok=True)
            parts.enter_context(mounted_disk(disk, DISK_MB[name]))
    except NoSmallDisk as error:
        log(f"no full disks: {error}")
        return {}
    return disks


def _insert_proxies(
    stack: Stack, disks: Mapping[str, Path], clock: JumpingClock
) -> dict[tuple[str, str], tuple[int, int]]:
    """Let components connect through proxies; return each proxy's port and target.

    The broker has a listener for each part that connects to it, because clients connect to the address that it names.
    """
    ports = stack.settings.stack
    kafka_links = [link for link in LINKS if link[1] == "kafka"]
    listeners = dict(zip(kafka_links, reserve_ports(len(kafka_links)), strict=True))
    proxy_ports = dict(zip(LINKS, reserve_ports(len(LINKS)), strict=True))
    targets = {link: listeners.get(link) or stack.components[link[1]].port for link in LINKS}
    overrides = kafka_properties(
        ports.kafka_port,
        ports.kafka_controller_port,
        [(client, listeners[client, server], proxy_ports[client, server]) for client, server in kafka_links],
    )
    stack.components["kafka"] = kafka.kafka_component(
        stack.folder / "kafka", ports.kafka_port, ports.kafka_controller_port, overrides
    )
    (port,) = reserve_ports(1)
    variables = {"DRIFTLOOP_INSTANCE_ID": SECOND_WORKER, "DRIFTLOOP_DRIFT_WORKER__PORT": str(port)}
    worker = stack.components["drift_worker"]
    stack.components[SECOND_WORKER] = replace(
        worker, name="second worker", port=port, environment={**worker.environment, **variables}
    )
    for name, component in stack.components.items():
        part = name.split("-")[0]
        variables = {"TMPDIR": str(disks["trainer"])} if name == "trainer" and disks else {}
        for client, server in LINKS:
            if client == part:
                variables |= _address(client, server, proxy_ports[client, server])
        if part == "predictor":
            variables |= clock.variables
        stack.components[name] = replace(component, environment={**component.environment, **variables})
    return {link: (proxy_ports[link], targets[link]) for link in LINKS}


def _address(client: str, server: str, port: int) -> dict[str, str]:
    """Return the variable by which a part finds another one."""
    if client == "mlflow":
        return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    return {
        "kafka": {"DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"},
        "mlflow": {"DRIFTLOOP_REGISTRY__URI": f"http://127.0.0.1:{port}"},
        "gcs": {"DRIFTLOOP_STORAGE__ENDPOINT": f"http://127.0.0.1:{port}"},
    }[server]


def kafka_properties(port: int, controller_port: int, clients: Sequence[tuple[str, int, int]]) -> str:
    """Return properties of a broker with a listener for each client, which it advertises at the client's proxy."""
    names = [client.replace("_", "").upper() for client, _, _ in clients]
    own = f"PLAINTEXT://127.0.0.1:{port}"
    listeners = [f"{name}://127.0.0.1:{inner}" for name, (_, inner, _) in zip(names, clients, strict=True)]
    advertised = [f"{name}://127.0.0.1:{proxy}" for name, (_, _, proxy) in zip(names, clients, strict=True)]
    protocols = [f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *names)]
    return "\n".join(
        [
            f"listeners={','.join([own, *listeners, f'CONTROLLER://127.0.0.1:{controller_port}'])}",
            f"advertised.listeners={','.join([own, *advertised])}",
            f"listener.security.protocol.map={','.join(protocols)}",
            "inter.broker.listener.name=PLAINTEXT",
            "",
        ]
    )
