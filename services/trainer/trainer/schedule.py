"""Retrains by the clock: a cron expression says when. Each time is asked for once, whoever is restarted meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator

from driftloop.events import Retrain, now


def _valid(expression: str) -> str:
    try:
        CronSim(expression, now())
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression such as '0 4 * * 1': {error}") from error
    return expression


Cron = Annotated[str, AfterValidator(_valid)]


class Schedule:
    """Asks for a retrain whenever its time has come; times that passed while nobody ran are left out."""

    def __init__(
        self, expression: Cron, timezone: str, model: str, ask: Callable[[Retrain], None], time: datetime | None = None
    ) -> None:
        """The expression is read in the use case's ``timezone``. ``time`` is from when on; now, if it is not said."""
        self._model = model
        self._ask = ask
        self._times = CronSim(expression, (time or now()).astimezone(ZoneInfo(timezone)))
        self._expression = expression
        self.next = next(self._times)

    def look(self, time: datetime) -> None:
        """Asks for what is due. Its id is made of its time: asked for twice, it is trained for once."""
        if time < self.next:
            return
        due = self.next
        self._ask(
            Retrain(
                id=f"schedule/{self._model}/{due.astimezone(UTC):%Y-%m-%dT%H:%M}Z",
                model=self._model,
                trigger="schedule",
                reason=f"the schedule {self._expression}",
                asked_by="schedule",
            )
        )
        while self.next <= time:
            self.next = next(self._times)
