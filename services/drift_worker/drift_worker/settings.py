"""The drift worker's settings."""

from pydantic import Field

from driftloop.settings import DeadLetters, Port, Server, Settings, Storage, WindowSettings


class DriftWorker(Server):
    """Where its pages and metrics are served."""

    port: Port = Field(8001, description="port to listen on")
    group: str = Field("drift_worker", description="consumer group; workers of one group share the partitions")


class DriftWorkerSettings(Settings):
    """Everything that the drift worker reads from the environment."""

    storage: Storage = Storage()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetters = DeadLetters()
    drift_worker: DriftWorker = DriftWorker()
