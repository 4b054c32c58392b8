"""Probation at work: whenever outcomes of the version in service have come, the version before is asked about them."""

from collections.abc import Callable, Iterable

import structlog
from kafka.errors import KafkaError
from mlflow.exceptions import MlflowException

from driftloop.events import Event, ModelChange, Quality
from driftloop.kafka.publisher import Unavailable
from trainer.probation.probation import Verdict
from trainer.retrain.subprocess_job import Child

log = structlog.get_logger(__name__)


class OnProbation:
    """Judges in a child process, one at a time; nothing is remembered that could not be found out again.

    First it tells of a way back that a process was killed over between the move of the alias and the event.
    """

    def __init__(
        self,
        model: str,
        begin: Callable[[], Child],
        end: Callable[[Verdict], ModelChange | None],
        publish: Callable[[ModelChange], None],
        untold: Callable[[], Iterable[ModelChange]],
    ) -> None:
        """``begin`` starts a judgement, ``end`` carries it out and returns what is to be said of it.

        ``untold`` finds what was carried out and never said.
        """
        self._model = model
        self._begin = begin
        self._end = end
        self._publish = publish
        self._untold = untold
        self._told = False
        self._due: str | None = None
        self._over: set[str] = set()
        self._child: Child | None = None

    def hear(self, event: Event | None) -> None:
        """Takes notice of outcomes."""
        if isinstance(event, Quality) and event.model == self._model and event.version not in self._over:
            self._due = event.version

    def look(self) -> None:
        """Looks at the judgement under way, and begins the next."""
        self._tell_what_is_untold()
        if self._child is None:
            if self._due is not None:
                self._due, self._child = None, self._begin()
            return
        self._child.told()
        ended = self._child.ended()
        if ended is None:
            return
        self._child = None
        if ended.how != "done":
            log.warning("probation not judged; the next outcomes are another chance", how=ended.how, why=ended.text)
            return
        verdict = Verdict.model_validate_json(ended.text)
        log.info("probation judged", version=verdict.version, what=verdict.what, why=verdict.why)
        if verdict.what == "stays" and verdict.version is not None:
            self._over.add(verdict.version)
        try:
            change = self._end(verdict)
            if change is not None:
                self._publish(change)
        except (MlflowException, Unavailable) as error:
            log.warning("the end of a probation is not carried out, or not told", error=str(error))

    def _tell_what_is_untold(self) -> None:
        """Once; again a little later where registry or broker are away."""
        if self._told:
            return
        try:
            for change in self._untold():
                log.info("told now what an earlier process could not tell any more", why=change.why)
                self._publish(change)
            self._told = True
        except (KafkaError, MlflowException, Unavailable) as error:
            log.warning("whether everything was told is not known yet", error=str(error))

    def close(self) -> None:
        """Ends the judgement under way."""
        if self._child is not None:
            self._child.kill()
            self._child = None
