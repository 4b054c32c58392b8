"""What the events on the topics say about one model, as far as the policy needs it. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from driftloop.events import DriftVerdict, Event, ModelStateChanged, QualityVerdict, RetrainRequested

REQUESTED_BY = "policy"
MAX_WINDOWS = 1_000  # kept for each version; the largest value of the setting LOOKBACK_WINDOWS


class WindowVerdict(NamedTuple):
    """The part of a verdict on a window that the policy needs. Sorts by the time of judgement."""

    judged_at: datetime
    name: str
    alarm: bool
    window_start: datetime
    window_end: datetime
    rows: int
    drifted_columns: tuple[str, ...]


@dataclass
class ModelHistory:
    """The events about one model. Adding an event again changes nothing.

    Events of the topics of models and of retrains have to be added in the order of their topic, others in any order.
    """

    model: str
    windows: dict[str, dict[str, WindowVerdict]] = field(default_factory=dict)
    """By version and window name; inconclusive verdicts are left out."""
    latest_quality: dict[str, QualityVerdict] = field(default_factory=dict)
    """The latest conclusive quality verdict of each version."""
    latest_labelled: QualityVerdict | None = None
    """The quality verdict with the latest prediction whose outcome is known, of any version."""
    retrains: dict[str, RetrainRequested] = field(default_factory=dict)
    changes: dict[str, ModelStateChanged] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Add an event. Events of other models, and those that the policy does not need, are ignored."""
        match event:
            case DriftVerdict(model=self.model, replayed=False, verdict="drift" | "no_drift"):
                self._add_window(event)
            case QualityVerdict(model=self.model):
                self._add_quality(event)
            case RetrainRequested(model=self.model):
                self.retrains.setdefault(event.id, event)
            case ModelStateChanged(model=self.model):
                self.changes.setdefault(event.id, event)

    def _add_window(self, verdict: DriftVerdict) -> None:
        window = WindowVerdict(
            verdict.time,
            verdict.window.name,
            verdict.verdict == "drift",
            verdict.first_prediction_at,
            verdict.last_prediction_at,
            verdict.rows,
            tuple(verdict.drifted_columns),
        )
        windows = self.windows.setdefault(verdict.version, {})
        windows.setdefault(window.name, window)
        if len(windows) > MAX_WINDOWS:
            del windows[min(windows.values()).name]

    def _add_quality(self, quality: QualityVerdict) -> None:
        previous = self.latest_quality.get(quality.version)
        if quality.verdict != "inconclusive" and (
            previous is None or (previous.time, previous.id) < (quality.time, quality.id)
        ):
            self.latest_quality[quality.version] = quality
        if self.latest_labelled is None or _labelled_order(self.latest_labelled) < _labelled_order(quality):
            self.latest_labelled = quality

    @property
    def in_service(self) -> ModelStateChanged | None:
        """The promotion or rollback that put the current version into service.

        It is the latest by its time: a promotion whose event was delivered again is published after a rollback of it.
        """
        moves = [
            change
            for change in reversed(self.changes.values())
            if change.state in ("promoted", "rolled_back") and change.version is not None
        ]
        return max(moves, key=lambda change: change.time, default=None)  # of equal times the later event

    @property
    def final_states(self) -> dict[str, ModelStateChanged]:
        """The latest final state of each finished retrain, by its id, in the order of their ends."""
        return {change.retrain_id: change for change in self.changes.values() if change.is_final}

    @property
    def pending(self) -> list[RetrainRequested]:
        """Retrains without a final state. They run in order, so every retrain before a finished one is finished too."""
        final_states = self.final_states
        pending: list[RetrainRequested] = []
        for retrain in self.retrains.values():
            pending = [] if retrain.id in final_states else [*pending, retrain]
        return pending

    @property
    def policy_retrains(self) -> dict[str, datetime]:
        """The end of the window that caused each of the policy's own retrains, by the retrain's id."""
        return {
            retrain.id: retrain.window_end
            for retrain in self.retrains.values()
            if retrain.requested_by == REQUESTED_BY and retrain.window_end
        }

    @property
    def consecutive_failures(self) -> int:
        """How many of the policy's own retrains in a row have not led to a version that stayed in service."""
        policy_retrains, count = self.policy_retrains, 0
        for change in reversed(self.final_states.values()):
            if change.state == "promoted":
                break
            count += change.retrain_id in policy_retrains
        return count

    def trained_through(self, version: str) -> datetime | None:
        """Return the time of the latest row that a version was trained on; None if no event says it."""
        times = [
            change.trained_through
            for change in self.changes.values()
            if change.version == version and change.trained_through
        ]
        return times[-1] if times else None

    @property
    def last_trained_through(self) -> datetime | None:
        """The time of the latest row that any version was trained on, including rejected and rolled-back versions."""
        return max((change.trained_through for change in self.changes.values() if change.trained_through), default=None)


def _labelled_order(quality: QualityVerdict) -> tuple[datetime, datetime, str]:
    return quality.last_prediction_at, quality.time, quality.id
