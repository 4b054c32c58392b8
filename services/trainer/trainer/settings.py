"""The trainer's settings."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from driftloop.drift.distances import DISTANCES, Distance
from driftloop.events import DataSelection
from driftloop.settings import DeadLetters, Port, Registry, Section, Server, Settings, Share, Storage, WindowSettings
from driftloop.storage.reference_store import PREDICTION
from driftloop.usecase import UseCaseSetting
from trainer.schedule import Cron


class Calibration(Section):
    """What a version's drift profile is made of; the drift worker follows the profile."""

    methods: dict[str, Distance] = Field(
        {}, description='distances by column where the default is not wanted, such as {"carrier": "psi"}'
    )


class Gate(Section):
    """What a challenger has to show before the alias moves."""

    rule: Literal["not_worse", "better"] = Field(
        "not_worse",
        description="where the lower end of the gain's interval must lie: above minus the margin (not_worse: the same "
        "pipeline on more data) or above 0 (better: a changed pipeline)",
    )
    margin: float = Field(
        0.02, ge=0, description="the loss that not_worse allows: of ROC AUC, or as a share of the champion's RMSE"
    )
    level: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    held_out_days: int = Field(14, ge=2, description="the latest days with outcomes, kept from the challenger")
    held_out_share: float | None = Field(
        None, gt=0, lt=1, description="instead of a number of days: a share of the labelled rows, in whole days"
    )
    fewest_days: int = Field(
        10, ge=2, description="held-out days (the use case's blocks of days) without which nothing is promoted"
    )
    group_share: Share = Field(0.05, description="a group with this share of the held-out rows is looked at by itself")
    group_margin: float = Field(
        0.01,
        ge=0,
        description="a group fares clearly worse where the upper end of its gain's interval lies below minus this",
    )
    refit: bool = Field(True, description="whether what is promoted is trained once more, with the held-out rows")
    slowest_ratio: float = Field(3, gt=0, description="an answer may take this many times as long as the champion's")
    try_seconds: float = Field(120, gt=0, description="a challenger that cannot be tried out for this long is refused")


class Data(Section):
    """What a training set is checked for, and what putting it together may take."""

    fewest_rows: int = Field(
        1_000, ge=1, description="labelled rows without which nothing is trained; shares of fewer rows are not judged"
    )
    missing_share: Share = Field(
        0.5,
        description="a column may be missing in this share more of the archive's rows than of the base dataset's: "
        "natural gaps made up 0.3 of 10,000 flights, and a column that nobody sends any more 1.0",
    )
    unmatched_share: Share = Field(
        0.5, description="share of the outcomes that may have no archived prediction: those of open windows have none"
    )
    memory_mb: int = Field(512, ge=128, description="memory for putting it together; what does not fit goes to disk")
    folder: Path | None = Field(
        None, description="where the archive's files are kept for the next retrain; without it each fetches them all"
    )


class Policy(Section):
    """When the trainer asks itself for a retrain."""

    enabled: bool = Field(True, description="whether it does")
    windows: int = Field(10, ge=1, le=1_000, description="latest windows of the version in service that are looked at")
    alarms: int = Field(4, ge=1, description="alarms among them that ask for a retrain; one odd day makes up to three")
    unlearned_days: int = Field(
        35, ge=0, description="days of outcomes that no version has learned from ask for a retrain too; 0: they do not"
    )
    cooldown_days: float = Field(7, ge=0, description="after a retrain it asks for none for so many days of windows")
    longest_cooldown_days: float = Field(
        14,
        ge=0,
        description="the cooldown doubles with each retrain in a row that brings nothing, up to this: after as many "
        "days as the gate holds out it judges by other days than the last time",
    )
    data: DataSelection = Field(DataSelection(), description="which rows its retrains may use, as JSON")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.alarms > self.windows:
            raise ValueError(f"{self.alarms} alarms in {self.windows} windows there cannot be")
        return self


class Probation(Section):
    """How long a promoted version is compared with the one before it, which comes back if it is clearly better."""

    days: int = Field(7, ge=0, description="days of outcomes after a promotion; 0 for no probation")
    fewest_days: int = Field(5, ge=2, description="days of outcomes before anything is decided")
    level: Share = Field(0.95, description="level of the interval of the difference")


class Trainer(Server):
    """Where its API listens and who may use it."""

    port: Port = Field(8002, description="port to listen on")
    group: str = Field("trainer", description="consumer group; one trainer of it takes the events of its models")
    api_key: SecretStr = Field(min_length=8, description="what POST /retrain wants as X-API-Key")
    longest_training_seconds: float = Field(3_600, gt=0, description="a retrain that takes longer has failed")
    threads: int = Field(
        1, ge=1, description="OpenMP threads of a training; more than are idle wait for one another most of the time"
    )
    memory_mb: float | None = Field(None, gt=0, description="a training that uses more memory has failed")
    revision: str = Field("", description="git revision of the code, which an image knows; by default the repository's")
    schedule: Cron | None = Field(
        None, description="cron expression in the use case's time zone, such as 0 4 * * 1: retrains by the clock"
    )


class TrainerSettings(Settings):
    """Everything that the trainer reads from the environment."""

    use_case: UseCaseSetting
    registry: Registry
    storage: Storage = Storage()
    window: WindowSettings = WindowSettings()
    dead_letters: DeadLetters = DeadLetters()
    calibration: Calibration = Calibration()
    data: Data = Data()
    gate: Gate = Gate()
    policy: Policy = Policy()
    probation: Probation = Probation()
    trainer: Trainer

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.registry.model != self.use_case.name:
            raise ValueError(
                f"DRIFTLOOP_REGISTRY__MODEL is {self.registry.model}, but DRIFTLOOP_USE_CASE is about "
                f"{self.use_case.name}"
            )
        return self

    @model_validator(mode="after")
    def _known_methods(self) -> Self:
        kinds = self.use_case.kinds | {PREDICTION: "number"}
        for column, method in self.calibration.methods.items():
            if column not in kinds:
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__METHODS names {column}, and the columns are {', '.join(kinds)}"
                )
            if method not in (allowed := DISTANCES[kinds[column]]):
                raise ValueError(
                    f"DRIFTLOOP_CALIBRATION__METHODS wants {method} for {column}, which is a {kinds[column]}: "
                    f"there is {', '.join(allowed)}"
                )
        return self
