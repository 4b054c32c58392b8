"""Tries a model out in a fresh process: can a predictor load it, does it answer, and how fast.

    echo "CHAMPION_FOLDER
    MODEL_FOLDER" | python -m trainer.gate.smoke_test

prints a :class:`trainer.gate.gate.Tried` as JSON; without a champion the first line is empty. What the trainer's own
process holds, such as modules and types that a predictor does not have, cannot help the model here.
"""

import math
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Self

import numpy as np
import skops.io  # noqa: F401  # takes long, and the process is begun before there is a model to load
from mlflow.models import ModelSignature
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from driftloop.registry.model_registry import Refused, StoredModel, read
from driftloop.settings import TRUSTED_TYPES
from trainer.gate.gate import Trial, Tried

ROWS = (1, 128)  # a request by itself, and what comes together under load
ROUNDS = 11  # of each size: a model beside itself took 0.99 to 1.09 times as long, 60 times out of 60
SECONDS = 2.0  # that a size may take; a model that is slower than that has fewer rounds


class Fresh:
    """A fresh process for one trial. Imports and champion take seconds: begun early, it waits for the challenger."""

    def __init__(self) -> None:
        """Begins it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.gate.smoke_test"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._has_champion = False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, whether it was asked or not."""
        self._process.kill()
        self._process.communicate()

    def hold_against(self, champion: Path) -> None:
        """Names the champion's folder, before there is a challenger."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and the trial will say so
            print(champion, file=self._process.stdin, flush=True)
        self._has_champion = True

    def tried(self, challenger: Path, seconds: float) -> Tried:
        """Tries the model of a folder out, which may take so many seconds."""
        lines = [*([] if self._has_champion else [""]), f"{challenger}", f"{seconds}", ""]
        try:
            said, complaints = self._process.communicate("\n".join(lines), timeout=seconds)
        except subprocess.TimeoutExpired:
            return Tried(broken=f"it was not tried out after {seconds:g} s (DRIFTLOOP_GATE__TRY_SECONDS)")
        try:
            return Tried.model_validate_json(said.strip().rpartition("\n")[2])
        except ValidationError:
            last = complaints.strip().rpartition("\n")[2]
            return Tried(broken=f"the process that tried it out ended with code {self._process.returncode}: {last}")


def tried_here(folder: Path, champion: Path | None) -> Tried:
    """Tries the model of a folder out beside the champion, in this process."""
    try:
        new = _answering(folder, "")
        old = _answering(champion, "the champion beside it: ") if champion is not None else None
        # Only now: a library that is loaded later knows no limit. Several threads wait for one another, and longest
        # where the machine is busy.
        with threadpool_limits(1):
            new_seconds, old_seconds = _seconds(new, old)
    except Refused as error:
        return Tried(broken=str(error))
    return Tried(challenger=_trial(new, new_seconds), champion=_trial(old, old_seconds) if old is not None else None)


def columns(signature: ModelSignature) -> dict[str, str]:
    """The types of a signature's inputs, in words, by column; a matrix is one column."""
    found = {}
    for place, column in enumerate(signature.inputs.to_dict()):
        kind = str(column.get("tensor-spec", column["type"]))
        found[column.get("name", f"input {place}")] = kind if column.get("required", True) else f"{kind} or missing"
    return found


def _answering(folder: Path, whose: str) -> StoredModel:
    """A model that answers its input example. Raises :class:`Refused`."""
    try:
        model = read(folder, TRUSTED_TYPES)
        if model.example is None:
            raise Refused("it has no input example to be tried with")
        for rows in ROWS:
            _answered(model, rows)
    except Refused as error:
        raise Refused(f"{whose}{error}") from error
    return model


def _answered(model: StoredModel, rows: int) -> float:
    """How many seconds of a processor an answer of so many rows takes. Raises :class:`Refused` where it is none.

    By the clock, other processes count too: on a busy machine a model then seems six times as slow as itself.
    """
    example = _repeated(model.example, rows)
    began = process_time()
    try:
        answer = np.asarray(getattr(model.estimator, model.predict_fn)(example))
    except Exception as error:  # an estimator is somebody else's code
        raise Refused(f"it does not answer its own input example: {type(error).__name__}: {error}") from error
    seconds = process_time() - began
    if len(answer) != rows or (answer.dtype.kind == "f" and not np.isfinite(answer).all()):
        raise Refused("its answer to its own input example is not a finite number for each row")
    return seconds


def _seconds(new: StoredModel, old: StoredModel | None) -> tuple[dict[int, float], dict[int, float]]:
    """The median time of an answer of each, by rows: in turns, so that what else the machine does slows both alike."""
    of_new, of_old = {}, {}
    for rows in ROWS:
        took: tuple[list[float], list[float]] = [], []
        began = perf_counter()
        while not took[0] or (len(took[0]) < ROUNDS and perf_counter() - began < SECONDS):
            for model, times in zip((new, old), took, strict=True):
                if model is not None:
                    times.append(_answered(model, rows))
        of_new[rows] = median(took[0])
        if took[1]:
            of_old[rows] = median(took[1])
    return of_new, of_old


def _repeated(example: Any, rows: int) -> Any:
    """So many rows of an example, over and over."""
    places = np.arange(rows) % len(example)
    return example[places] if isinstance(example, np.ndarray) else example.iloc[places]


def _trial(model: StoredModel, seconds: dict[int, float]) -> Trial:
    return Trial(columns=columns(model.signature), seconds=seconds)


def main() -> None:
    """Prints how a model was tried out; ends without a word where whoever began it ended before there was one."""
    if champion := sys.stdin.readline().rstrip("\n"):
        with suppress(Refused):  # it is told with the challenger
            _answering(Path(champion), "")  # and has brought the imports that both need
    challenger, seconds = (sys.stdin.readline().rstrip("\n") for _ in range(2))
    if not challenger:
        return
    if seconds:
        signal.alarm(math.ceil(float(seconds)))  # who waits for it may have been killed
    print(tried_here(Path(challenger), Path(champion) if champion else None).model_dump_json())


if __name__ == "__main__":
    main()
