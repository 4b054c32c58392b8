"""Whether the challenger may serve. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from driftloop.evaluation.metrics import Floats, Interval, Ints, Name, are_probabilities, figure_of, paired_difference

if TYPE_CHECKING:
    from trainer.settings import Gate  # imports more than a fresh process should wait for

Metric = Literal["roc_auc", "rmse"]

CALIBRATION_TOLERANCE = 0.0025  # in Brier score: what it costs to be five points off everywhere, 0.05 squared
LOWER_IS_BETTER = ("rmse", "brier")
NAMES = {"roc_auc": "ROC AUC", "rmse": "RMSE"}
DECIMALS = {"roc_auc": ".3f", "brier": ".4f"}  # an RMSE has any size


class Decision(NamedTuple):
    """What the gate found, and why, in words."""

    promote: bool
    why: str
    champion: dict[str, float]
    challenger: dict[str, float]
    reasons: tuple[str, ...] = ()
    """Each of what speaks against the challenger; none where it is promoted."""


class Answers(NamedTuple):
    """What happened, and what both models said of it, on rows that neither was trained on."""

    outcomes: Floats
    champion: Floats
    challenger: Floats
    blocks: Ints
    """Each row's, such as its day: what :meth:`driftloop.usecase.UseCase.blocks` says."""
    block_days: int = 1
    groups: Mapping[str, npt.NDArray[np.object_]] = {}
    """Each row's value, by the columns whose groups are looked at."""

    def where(self, rows: npt.NDArray[np.bool_]) -> Answers:
        """The same of some of the rows, without their groups."""
        return self._replace(
            outcomes=self.outcomes[rows],
            champion=self.champion[rows],
            challenger=self.challenger[rows],
            blocks=self.blocks[rows],
            groups={},
        )


class Trial(BaseModel, frozen=True):
    """What one model is like in a process of its own."""

    columns: dict[str, str]
    """The types of its input, in words, by column."""
    seconds: dict[int, float]
    """The median processor time of an answer, by the number of rows."""


class Tried(BaseModel, frozen=True):
    """How a fresh process got on with a challenger, and with the champion beside it.

    With nothing in it, it speaks against nothing.
    """

    broken: str | None = None
    """Why the challenger cannot be loaded or does not answer; missing where it does."""
    challenger: Trial | None = None
    champion: Trial | None = None


FIRST = Decision(True, "the first version: there is no champion to compare it with", {}, {})


def first(tried: Tried) -> Decision:
    """What is decided where there is no champion: :data:`FIRST`, if the version can serve at all."""
    reasons = tuple(_tried(tried, np.inf))
    return Decision(False, reasons[0], {}, {}, reasons) if reasons else FIRST


def days_held_out(days: Ints, rules: Gate) -> int:
    """How many of the latest days with outcomes are held out. ``days`` are those of the labelled rows.

    A share of the rows is rounded to the nearest number of whole days.
    """
    if rules.held_out_share is None:
        return rules.held_out_days
    latest_first = np.unique(days, return_counts=True)[1][::-1]
    return 1 + int(np.abs(latest_first.cumsum() / len(days) - rules.held_out_share).argmin())


def decide(metric: Metric, answers: Answers, tried: Tried, rules: Gate) -> Decision:
    """Holds a challenger against the champion. All that speaks against it is said, not only the first.

    A gain is by how much the challenger is better: a higher ROC AUC, a lower RMSE or Brier score. Margins are in ROC
    AUC; of an RMSE, which has the outcome's unit, they are shares of the champion's.
    """
    old, new = _figure(metric, answers.champion, answers), _figure(metric, answers.challenger, answers)
    gain = _gain(metric, answers, rules.level)
    limit = 0.0 if rules.rule == "better" else 0.0 - rules.margin * _unit(metric, old)
    rows, blocks = len(answers.outcomes), len(np.unique(answers.blocks))
    compared = (
        f"{NAMES[metric]} {_number(metric, new)} against the champion's {_number(metric, old)} on {rows:,} rows of "
        f"{blocks} held-out {_days(answers)}: {_words(metric, gain, rules.level)}, {_days(answers)} drawn whole"
    )
    reasons = (
        *_too_few(blocks, answers, rules),
        *_not_answered(answers),
        *_not_good_enough(metric, gain, limit, rules),
        *_worse_groups(metric, answers, rules),
        *_worse_calibrated(metric, answers, rules),
        *_another_signature(tried),
        *_tried(tried, rules.slowest_ratio),
    )
    passed = f"{compared}, whose lower end is above {limit:.3g} (rule {rules.rule})"
    figures = {"rows": float(rows), "days": float(blocks)}
    return Decision(
        not reasons,
        f"{'; '.join(reasons)}. {compared}" if reasons else passed,
        _finite({metric: old, **_brier(metric, answers.champion, answers), **_times(tried.champion), **figures}),
        _finite(
            {
                metric: new,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                **_brier(metric, answers.challenger, answers),
                **_times(tried.challenger),
                **figures,
            }
        ),
        reasons,
    )


def _gain(figure: Name, answers: Answers, level: float) -> Interval:
    """By how much the challenger is better: the one place that knows which figures are better the smaller they are."""
    found = paired_difference(
        figure, answers.outcomes, answers.champion, answers.challenger, answers.blocks, level=level
    )
    return Interval(-found.value, -found.high, -found.low) if figure in LOWER_IS_BETTER else found


def _unit(metric: Metric, champion: float) -> float:
    """What a margin is a multiple of."""
    return champion if metric == "rmse" else 1.0


def _too_few(blocks: int, answers: Answers, rules: Gate) -> Iterator[str]:
    if blocks < rules.fewest_days:
        yield (
            f"{blocks} {_days(answers)} are held out, and {rules.fewest_days} are needed: "
            f"{rules.fewest_days - blocks} more (DRIFTLOOP_GATE__FEWEST_DAYS)"
        )


def _not_answered(answers: Answers) -> Iterator[str]:
    unanswered = int((~np.isfinite(answers.challenger)).sum())
    if unanswered:
        yield f"its answer is no finite number for {unanswered:,} of {len(answers.outcomes):,} rows"


def _not_good_enough(metric: Metric, gain: Interval, limit: float, rules: Gate) -> Iterator[str]:
    if np.isnan(gain.value):
        yield f"the held-out rows and the answers to them tell no {NAMES[metric]}"
    elif not gain.low > limit:
        yield f"the gain's lower end {_number(metric, gain.low, '+')} is not above {limit:.3g} (rule {rules.rule})"


def _worse_groups(metric: Metric, answers: Answers, rules: Gate) -> Iterator[str]:
    """Large groups that fare clearly worse.

    The more groups, the more of them look worse by chance: the level is raised so that all their intervals together
    hold the truth as often as one alone should (Bonferroni).
    """
    large = _large_groups(answers, rules.group_share)
    level = 1 - (1 - rules.level) / max(len(large), 1)
    for name, group in large.items():
        old, new = _figure(metric, group.champion, group), _figure(metric, group.challenger, group)
        gain = _gain(metric, group, level)
        if gain.high < -rules.group_margin * _unit(metric, old):
            yield (
                f"{name} fares clearly worse: {NAMES[metric]} {_number(metric, new)} against {_number(metric, old)} on "
                f"{len(group.outcomes):,} rows, {_words(metric, gain, level)} since it is one of {len(large)} groups"
            )


def _large_groups(answers: Answers, share: float) -> dict[str, Answers]:
    """The rows of each value that so many rows have, by the value's column and name."""
    found = {}
    for column, given in answers.groups.items():
        values = given.astype(str)
        for value, rows in zip(*np.unique(values, return_counts=True), strict=True):
            if rows >= share * len(values):
                found[f"{column} {value}"] = answers.where(values == value)
    return found


def _worse_calibrated(metric: Metric, answers: Answers, rules: Gate) -> Iterator[str]:
    old, new = _brier(metric, answers.champion, answers), _brier(metric, answers.challenger, answers)
    if not (old and new):
        return
    gain = _gain("brier", answers, rules.level)
    if gain.high < 0 and gain.value < -CALIBRATION_TOLERANCE:
        yield (
            f"its probabilities are clearly further off: Brier score {new['brier']:.4f} against {old['brier']:.4f}, "
            f"{_words('brier', gain, rules.level)}"
        )


def _another_signature(tried: Tried) -> Iterator[str]:
    """A column that may be missing now, and could not before, is no difference: what was asked can still be asked."""
    if tried.challenger is None or tried.champion is None:
        return
    old, new = tried.champion.columns, tried.challenger.columns
    changes = [
        *(f"{column} is gone" for column in old if column not in new),
        *(f"{column} ({kind}) is new" for column, kind in new.items() if column not in old),
        *(
            f"{column} is {new[column]}, and was {kind}"
            for column, kind in old.items()
            if column in new and new[column] not in (kind, f"{kind} or missing")
        ),
    ]
    if changes:
        yield f"its columns are not the champion's: {', '.join(changes)}"


def _tried(tried: Tried, slowest_ratio: float) -> Iterator[str]:
    if tried.broken is not None:
        yield f"it cannot serve: {tried.broken}"
    elif tried.challenger is not None and tried.champion is not None:
        for rows, seconds in tried.challenger.seconds.items():
            usual = tried.champion.seconds[rows]
            if seconds > slowest_ratio * usual:
                yield (
                    f"an answer of {rows} rows takes {seconds * 1000:.3g} ms, {seconds / usual:.1f} times the "
                    f"champion's {usual * 1000:.3g} ms, and {slowest_ratio:g} times is the most "
                    "(DRIFTLOOP_GATE__SLOWEST_RATIO)"
                )


def _figure(figure: Name, predictions: Floats, answers: Answers) -> float:
    return figure_of(figure, answers.outcomes, predictions)


def _brier(metric: Metric, predictions: Floats, answers: Answers) -> dict[str, float]:
    """The Brier score of probabilities; scores and numbers have none."""
    if metric == "rmse" or not are_probabilities(predictions):
        return {}
    return {"brier": _figure("brier", predictions, answers)}


def _times(trial: Trial | None) -> dict[str, float]:
    return {f"milliseconds_{rows}_rows": seconds * 1000 for rows, seconds in (trial.seconds if trial else {}).items()}


def _finite(figures: dict[str, float]) -> dict[str, float]:
    """Without those that could not be told: JSON has no word for them."""
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def _number(figure: Name, value: float, sign: str = "") -> str:
    return format(value, f"{sign}{DECIMALS.get(figure, '.4g')}")


def _words(figure: Name, gain: Interval, level: float) -> str:
    value, low, high = (_number(figure, one, "+") for one in gain)
    return f"a gain of {value} [{low}, {high}] at {100 * level:.4g}%"


def _days(answers: Answers) -> str:
    return "days" if answers.block_days == 1 else f"blocks of {answers.block_days} days"
