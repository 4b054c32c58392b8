"""Scheduled retrains by a cron expression. Each scheduled time leads to one retrain, whichever process restarts."""

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

from driftloop.events import DataSelection, RetrainRequested, as_id_part, now
from trainer.event_publisher import EventPublisher


def _validate_cron(expression: str) -> str:
    try:
        CronSim(expression, now())
    except CronSimError as error:
        raise ValueError(f"{expression!r} is not a cron expression such as '0 4 * * 1': {error}") from error
    return expression


Cron = Annotated[str, AfterValidator(_validate_cron)]


class Schedule:
    """Requests a retrain at each scheduled time. Times that pass while no trainer runs are skipped."""

    def __init__(
        self,
        expression: Cron,
        timezone: str,
        model: str,
        publisher: EventPublisher,
        start: datetime | None = None,
        data: DataSelection | None = None,
    ) -> None:
        """Compute the next time.

        Args:
            expression: The cron expression, in the use case's time zone.
            timezone: The name of that time zone.
            model: The registered model.
            publisher: Publishes the retrain events.
            start: The first time that counts; by default now.
            data: The rows that the retrains may use; by default all.
        """
        self._model = model
        self._data = data or DataSelection()
        self._publisher = publisher
        self._times = CronSim(expression, (start or now()).astimezone(ZoneInfo(timezone)))
        self._expression = expression
        self.next = next(self._times)

    def run_due(self, time: datetime) -> None:
        """Request a retrain if one is due at ``time``.

        The event's id is derived from the scheduled time, so that a repeated request is trained once.

        Raises:
            BrokerUnavailable: The request may not have been published; it stays due.
        """
        if time < self.next:
            return
        due = self.next
        self._publisher.publish(
            RetrainRequested(
                id=f"schedule/{as_id_part(self._model)}/{due.astimezone(UTC):%Y-%m-%dT%H:%M}Z",
                model=self._model,
                trigger="schedule",
                reason=f"the schedule {self._expression}",
                requested_by="schedule",
                data=self._data,
            )
        )
        while self.next <= time:
            self.next = next(self._times)
