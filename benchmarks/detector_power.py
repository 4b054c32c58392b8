"""False alarms and power of drift detectors: counted in judged windows, and shown as tables."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks import streams
from benchmarks.streams import EVERY, INJECTIONS, LATER, YEAR, shares
from tests.support import report
from tests.support.report import tell

RATES = (0.05, 0.01)
CHANGES = (0.1, 0.25, 0.5)  # of one of their numbers, in standard deviations
NAMED = (*(f"{scale} {rate}" for scale in ("single", "rolling") for rate in RATES), "facts")
CHANGED, PATIENCE = "number 0", 3  # windows in which a change should be found


def alarms(judged: pd.DataFrame, what: str) -> pd.DataFrame:
    """The windows for which something can be said, with an alarm or none.

    ``what`` is a column of :meth:`Detector.judged`, or ``either`` with a rate: what the drift worker alarms for, where
    two windows are before the last.
    """
    if what.startswith("either"):
        rate = what.rsplit(maxsplit=1)[-1]
        known = judged[judged["before"]]
        said = known[f"rolling {rate}"].map(bool) | known[f"single {rate}"].map(bool)
    else:
        known = judged[judged[what].notna()]
        said = known[what].map(bool)
    return known.assign(alarm=said)


def share(judged: pd.DataFrame, what: str) -> list[float]:
    """Percent of windows with an alarm, and its interval; empty where there is no such window."""
    known = alarms(judged, what)
    return shares(known["alarm"].to_numpy(dtype=bool), known["block"].to_numpy()).tolist() if len(known) else []


def words(found: Sequence[float]) -> str:
    """Such a share."""
    if not found:
        return "–"
    value, low, high = found
    return f"{value:.1f} [{low:.0f}–{high:.0f}]"


def short(title: str) -> str:
    """A month in three letters; other titles as they are."""
    return title if " " in title else title[:3]


def show_alarms(name: str, judged: pd.DataFrame, peers: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Percent of windows with an alarm, by detector: quiet ones, and the others by month."""
    months = list(judged[judged["design"] == YEAR]["block"].unique())
    chosen = {design: ("design", design) for design in (EVERY, LATER)} | {month: ("block", month) for month in months}
    found: dict[str, dict[str, list[float]]] = {}
    for scale in ("single", "rolling", "either"):
        for rate in RATES:
            found[f"driftloop: {scale}, {rate * 100:g} %"] = {
                title: share(judged[judged[column] == value], f"{scale} {rate}")
                for title, (column, value) in chosen.items()
            }
    for what in ("any", "half"):
        found[f"evidently: {what} of the columns"] = {
            title: share(judged[judged[column] == value], f"evidently {what}")
            for title, (column, value) in chosen.items()
        }
    real = peers[peers["injection"] == ""]
    for detector, of_detector in real.groupby("detector"):
        for rate in RATES if str(detector).startswith("alibi") else RATES[:1]:
            told = f"{detector}, {rate * 100:g} %" if str(detector).startswith("alibi") else f"{detector}, defaults"
            found[told] = {
                title: share(of_detector[of_detector[column] == value], str(rate))
                for title, (column, value) in chosen.items()
            }
    shown = report.table(
        f"{name}: % of windows with an alarm; the first two columns are quiet", "", *map(short, chosen)
    )
    for row, values in found.items():
        shown.add_row(row, *(
            words(value) if title in (EVERY, LATER) else f"{value[0]:.0f}" if value else "–"
            for title, value in values.items()
        ))  # fmt: skip
    report.console.print(shown)
    odd = words(share(judged[judged["design"] == EVERY], "facts"))
    tell(f"{name}: quiet windows with a fact beside the verdict, which is no alarm: {odd} %")
    return found


def scored(judged: pd.DataFrame, peers: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each detector's scores of single windows."""
    evidently = judged.assign(score=judged["evidently score"])
    of_peers = {str(name): one for name, one in peers.groupby("detector")}
    return {"driftloop": judged, "evidently: largest distance": evidently, **of_peers}


def show_same_rate(name: str, judged: pd.DataFrame, peers: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Percent of single windows found by month, with the limit that lets just so many quiet windows of each alarm."""
    months = list(judged[judged["design"] == YEAR]["block"].unique())
    found: dict[str, dict[str, float]] = {}
    for rate in RATES:
        for detector, scores in scored(judged, peers[peers["injection"] == ""]).items():
            limit = limit_at(scores, rate)
            found[f"{detector}, {rate * 100:g} %"] = {
                month: float((scores[scores["block"] == month]["score"] > limit).mean() * 100) for month in months
            }
    shown = report.table(
        f"{name}: % of single windows found when {', '.join(f'{rate * 100:g}' for rate in RATES)} % of the quiet alarm",
        *("", *map(short, months), "mean"),
    )
    for row, values in found.items():
        shown.add_row(row, *(f"{value:.0f}" for value in values.values()), f"{np.nanmean(list(values.values())):.0f}")
    report.console.print(shown)
    return found


def limit_at(scores: pd.DataFrame, rate: float) -> float:
    """The score that so many of the quiet windows are above: known afterwards only, for a fair comparison."""
    return float(np.quantile(scores[scores["design"] == EVERY]["score"], 1 - rate))


def show_injections(
    injected: pd.DataFrame, quiet: pd.DataFrame, peers: pd.DataFrame
) -> dict[str, dict[str, list[float]]]:
    """Percent of changed windows in which the changed column is named; and, at the same rate, those with an alarm."""
    said = injected.assign(**{what: pd.Series(named(injected, what), dtype=object) for what in NAMED})
    told = scored(injected, peers[peers["injection"] != ""])
    limits = {
        detector: limit_at(scores, RATES[0])
        for detector, scores in scored(quiet, peers[peers["injection"] == ""]).items()
    }
    found: dict[str, dict[str, list[float]]] = {}
    for injection in INJECTIONS:
        one = said[said["injection"] == injection.name]
        whole = one[one["before"]]
        either = whole["single 0.05"] | whole["rolling 0.05"] | whole["facts"]
        found[injection.name] = {
            **{what: share(one, what) for what in NAMED},
            "found": share(whole.assign(found=either), "found"),
            **{
                detector: share(scores.assign(over=scores["score"] > limits[detector]), "over")
                for detector, every in told.items()
                for scores in [every[every["injection"] == injection.name]]
            },
        }
    shown = report.table(
        f"flights: % of changed windows that name the column; right, % that alarm when {RATES[0]:.0%} of the quiet do",
        *("", *(what.replace("0.05", "5 %").replace("0.01", "1 %") for what in NAMED), "found", *told),
    )
    for row, values in found.items():
        shown.add_row(row, *(f"{value[0]:.0f}" if value else "–" for value in values.values()))
    report.console.print(shown)
    return found


def named(judged: pd.DataFrame, what: str) -> list[bool | None]:
    """Whether the changed column is among those of a column of :meth:`Detector.judged`."""
    return [
        None if columns is None else column in columns
        for columns, column in zip(judged[what], judged["column"], strict=True)
    ]


def show_made(known: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """False alarms, and the share of changes that are named within some windows."""
    found: dict[str, dict[str, list[float]]] = {}
    for truth in known["truth"].unique():
        quiet = known[(known["truth"] == truth) & (known["size"] == 0)]
        found[truth] = {f"false alarms, {rate * 100:g} %": share(quiet, f"either {rate}") for rate in RATES}
        for size in CHANGES:
            changed = known[
                (known["truth"] == truth) & (known["size"] == size) & (known["end"] > 2.5 * streams.DAY_ROWS)
            ]
            said = changed.assign(
                named=[
                    any(columns and CHANGED in columns for columns in both)
                    for both in zip(changed["single 0.05"], changed["rolling 0.05"], strict=True)
                ]
            )
            first = said.groupby("block")["named"].any().reset_index()
            found[truth][f"+ {size:g} sd"] = share(first, "named")
    shown = report.table(
        f"made streams: % of windows that alarm falsely; % of changes named in {PATIENCE} windows, at 5 %",
        *("", *next(iter(found.values()))),
    )
    for truth, values in found.items():
        shown.add_row(truth, *map(words, values.values()))
    report.console.print(shown)
    return found
