"""False alarms and power of drift detectors, computed from scored windows and printed as tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks import drift_streams
from benchmarks.drift_streams import EVERY_4TH_WEEK, INJECTIONS, LATER_WEEKS, REST_OF_YEAR, rate_with_interval
from tests.support import report
from tests.support.report import log

RATES = (0.05, 0.01)
CHANGE_SIZES = (0.1, 0.25, 0.5)  # of a number in synthetic streams, in standard deviations
NAMED_BY = (*(f"{scale} {rate}" for scale in ("single", "rolling") for rate in RATES), "issues")
CHANGED_COLUMN = "number 0"
MAX_DELAY_WINDOWS = 3  # a change should be found within so many windows


def with_alarms(scored: pd.DataFrame, result: str) -> pd.DataFrame:
    """Return the windows that have a result, with a column ``alarm``.

    ``result`` is a column of the results of ``Detector.score_windows``, or ``either`` with a rate: the alarms of the
    drift worker, single or rolling, for windows with two windows before them.
    """
    if result.startswith("either"):
        rate = result.rsplit(maxsplit=1)[-1]
        windows = scored[scored["before"]]
        alarms = windows[f"rolling {rate}"].map(bool) | windows[f"single {rate}"].map(bool)
    else:
        windows = scored[scored[result].notna()]
        alarms = windows[result].map(bool)
    return windows.assign(alarm=alarms)


def alarm_rate(scored: pd.DataFrame, result: str) -> list[float]:
    """Return the percentage of windows with an alarm and its interval; an empty list if there is no such window."""
    windows = with_alarms(scored, result)
    if windows.empty:
        return []
    rate: list[float] = rate_with_interval(windows["alarm"].to_numpy(dtype=bool), windows["block"].to_numpy()).tolist()
    return rate


def format_rate(rate: Sequence[float]) -> str:
    """Return a rate with its interval as text."""
    if not rate:
        return "–"
    value, low, high = rate
    return f"{value:.1f} [{low:.0f}–{high:.0f}]"


def short_title(title: str) -> str:
    """Return a month in three letters, other titles unchanged."""
    return title if " " in title else title[:3]


def print_alarms(name: str, scored: pd.DataFrame, peers: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Print and return the percentage of windows with an alarm by detector: unchanged windows, and others by month."""
    months = list(scored[scored["design"] == REST_OF_YEAR]["block"].unique())
    filters = {design: ("design", design) for design in (EVERY_4TH_WEEK, LATER_WEEKS)} | {
        month: ("block", month) for month in months
    }
    rates: dict[str, dict[str, list[float]]] = {}
    for scale in ("single", "rolling", "either"):
        for rate in RATES:
            rates[f"driftloop: {scale}, {rate * 100:g} %"] = {
                title: alarm_rate(scored[scored[column] == value], f"{scale} {rate}")
                for title, (column, value) in filters.items()
            }
    for result in ("any", "half"):
        rates[f"evidently: {result} of the columns"] = {
            title: alarm_rate(scored[scored[column] == value], f"evidently {result}")
            for title, (column, value) in filters.items()
        }
    uninjected = peers[peers["injection"] == ""]
    for detector, results in uninjected.groupby("detector"):
        has_false_alarm_rate = str(detector).startswith("alibi")
        for rate in RATES if has_false_alarm_rate else RATES[:1]:
            label = f"{detector}, {rate * 100:g} %" if has_false_alarm_rate else f"{detector}, defaults"
            rates[label] = {
                title: alarm_rate(results[results[column] == value], str(rate))
                for title, (column, value) in filters.items()
            }
    table = report.create_table(
        f"{name}: % of windows with an alarm; nothing has changed in the first two columns",
        "",
        *map(short_title, filters),
    )
    for row, values in rates.items():
        table.add_row(row, *(
            format_rate(value) if title in (EVERY_4TH_WEEK, LATER_WEEKS) else f"{value[0]:.0f}" if value else "–"
            for title, value in values.items()
        ))  # fmt: skip
    report.console.print(table)
    issue_rate = format_rate(alarm_rate(scored[scored["design"] == EVERY_4TH_WEEK], "issues"))
    log(f"{name}: unchanged windows with a data quality issue, which is no alarm: {issue_rate} %")
    return rates


def scores_by_detector(scored: pd.DataFrame, peers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each detector's scores of single windows."""
    evidently = scored.assign(score=scored["evidently score"])
    by_peer = {str(name): results for name, results in peers.groupby("detector")}
    return {"driftloop": scored, "evidently: largest distance": evidently, **by_peer}


def print_power_at_equal_rate(name: str, scored: pd.DataFrame, peers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Print and return the percentage of single windows with an alarm by month, at equal rates of false alarms."""
    months = list(scored[scored["design"] == REST_OF_YEAR]["block"].unique())
    rates: dict[str, dict[str, float]] = {}
    for rate in RATES:
        for detector, scores in scores_by_detector(scored, peers[peers["injection"] == ""]).items():
            threshold = threshold_for_rate(scores, rate)
            rates[f"{detector}, {rate * 100:g} %"] = {
                month: float((scores[scores["block"] == month]["score"] > threshold).mean() * 100) for month in months
            }
    percentages = " and ".join(f"{rate * 100:g}" for rate in RATES)
    table = report.create_table(
        f"{name}: % of single windows with an alarm, at false alarm rates of {percentages} %",
        *("", *map(short_title, months), "mean"),
    )
    for row, values in rates.items():
        table.add_row(row, *(f"{value:.0f}" for value in values.values()), f"{np.nanmean(list(values.values())):.0f}")
    report.console.print(table)
    return rates


def threshold_for_rate(scores: pd.DataFrame, rate: float) -> float:
    """Return the score that this rate of unchanged windows exceed: a threshold for comparison, not known in advance."""
    return float(np.quantile(scores[scores["design"] == EVERY_4TH_WEEK]["score"], 1 - rate))


def print_injections(
    injected: pd.DataFrame, unchanged: pd.DataFrame, peers: pd.DataFrame
) -> dict[str, dict[str, list[float]]]:
    """Print and return the percentage of changed windows whose changed column is named, and of those with an alarm.

    The alarms are those of each detector's score with thresholds for the same rate of false alarms.
    """
    named = injected.assign(
        **{result: pd.Series(names_changed_column(injected, result), dtype=object) for result in NAMED_BY}
    )
    by_detector = scores_by_detector(injected, peers[peers["injection"] != ""])
    thresholds = {
        detector: threshold_for_rate(scores, RATES[0])
        for detector, scores in scores_by_detector(unchanged, peers[peers["injection"] == ""]).items()
    }
    rates: dict[str, dict[str, list[float]]] = {}
    for injection in INJECTIONS:
        windows = named[named["injection"] == injection.name]
        complete = windows[windows["before"]]
        found = complete["single 0.05"] | complete["rolling 0.05"] | complete["issues"]
        rates[injection.name] = {
            **{result: alarm_rate(windows, result) for result in NAMED_BY},
            "found": alarm_rate(complete.assign(found=found), "found"),
            **{
                detector: alarm_rate(scores.assign(over=scores["score"] > thresholds[detector]), "over")
                for detector, all_scores in by_detector.items()
                for scores in [all_scores[all_scores["injection"] == injection.name]]
            },
        }
    table = report.create_table(
        f"flights: % of changed windows that name the column; right, % with an alarm at {RATES[0]:.0%} false alarms",
        *("", *(result.replace("0.05", "5 %").replace("0.01", "1 %") for result in NAMED_BY), "found", *by_detector),
    )
    for row, values in rates.items():
        table.add_row(row, *(f"{value[0]:.0f}" if value else "–" for value in values.values()))
    report.console.print(table)
    return rates


def names_changed_column(scored: pd.DataFrame, result: str) -> list[bool | None]:
    """Return whether the changed column is among the columns that a detector names, by window."""
    return [
        None if columns is None else column in columns
        for columns, column in zip(scored[result], scored["column"], strict=True)
    ]


def print_synthetic(scored: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Print and return false alarms on synthetic streams, and the percentage of changes that are named in time."""
    rates: dict[str, dict[str, list[float]]] = {}
    for truth in scored["truth"].unique():
        unchanged = scored[(scored["truth"] == truth) & (scored["size"] == 0)]
        rates[truth] = {f"false alarms, {rate * 100:g} %": alarm_rate(unchanged, f"either {rate}") for rate in RATES}
        for size in CHANGE_SIZES:
            is_after = scored["end"] > 2.5 * drift_streams.DAY_ROWS
            changed = scored[(scored["truth"] == truth) & (scored["size"] == size) & is_after]
            named = changed.assign(
                named=[
                    any(columns and CHANGED_COLUMN in columns for columns in column_sets)
                    for column_sets in zip(changed["single 0.05"], changed["rolling 0.05"], strict=True)
                ]
            )
            by_stream = named.groupby("block")["named"].any().reset_index()
            rates[truth][f"+ {size:g} sd"] = alarm_rate(by_stream, "named")
    table = report.create_table(
        f"synthetic streams: % false alarms; % of changes named within {MAX_DELAY_WINDOWS} windows, at 5 %",
        *("", *next(iter(rates.values()))),
    )
    for truth, values in rates.items():
        table.add_row(truth, *map(format_rate, values.values()))
    report.console.print(table)
    return rates
