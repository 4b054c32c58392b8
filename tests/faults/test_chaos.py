"""A few faults of several kinds on the whole stack under load; ``make chaos`` causes many more."""

import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import chaos
from driftloop.events import DriftVerdict, ModelStateChanged, Window
from tests.support.chaos import counts
from tests.support.chaos.counts import FaultResult, Line, Resources, Round
from tests.support.chaos.faults import all_faults, draw
from tests.support.chaos.setup import DISK_MB, running_system

FEW = ("relay killed", "drift_worker killed", "predictor to kafka: reset", "trainer to mlflow: cut", "poison: zeros")
FEW_PLAN = chaos.QUICK._replace(faults=len(FEW), round_faults=len(FEW), rate=30, stuck_seconds=600)


@pytest.mark.integration
@pytest.mark.timeout(3_600)
def test_few_faults_under_load_lose_double_and_stop_nothing(tmp_path: Path, random_source: random.Random) -> None:
    by_name = {fault.name: fault for fault in all_faults()}
    with running_system(tmp_path / "stack", print) as system:
        findings = chaos.run(system, [by_name[name] for name in FEW], FEW_PLAN, random_source)
    chaos.print_table(findings)
    assert [result.stuck for result in findings.results] == [[]] * len(FEW)
    assert (findings.counts.lost, findings.counts.doubled) == (Counter(), Counter()), findings.counts.problems
    assert {result.failed for result in findings.results if not result.is_predictors_own} == {0}


def test_drawn_faults_have_all_kinds_and_are_the_same_for_a_seed() -> None:
    drawn = draw(random.Random(1), 120, DISK_MB)
    assert [fault.name for fault in drawn] == [fault.name for fault in draw(random.Random(1), 120, DISK_MB)]
    kinds = {fault.kind for fault in all_faults()}
    assert {fault.kind for fault in drawn[: len(kinds)]} == kinds
    assert len(kinds) >= 12
    assert len({fault.name for fault in all_faults()}) == len(all_faults())
    assert not any(fault.disk for fault in draw(random.Random(1), 120, ()))


def test_events_are_lost_or_doubled_by_the_fault_of_their_answer() -> None:
    round_ = Round(
        answered={"a": "kill", "b": "kill", "c": "cut", "d": "cut", "e": "cut"},
        published=Counter({"a": 1, "c": 2, "d": 1, "e": 1, "unanswered": 1}),
        archived=Counter({"a": 1, "c": 1, "d": 2, "unanswered": 1, "aborted": 1}),
        deleted={"e"},
    )
    counted = counts.count_events(round_)
    assert counted.lost == {"kill": 1}
    assert counted.doubled == {"cut": 2, counts.NOT_ANSWERED: 1}
    assert len(counted.problems) == 4


def slice_(first: int, last: int) -> Window:
    return Window(topic="t", partition=0, first_offset=first, last_offset=last)


@pytest.mark.parametrize(
    ("slices", "lost", "doubled"),
    [
        ([(0, 4), (5, 9)], 0, 0),
        ([(0, 4), (6, 9)], 1, 0),
        ([(0, 4), (4, 9)], 0, 1),
        ([(1, 9)], 1, 0),
        ([(0, 8)], 1, 0),
        ([(0, 2), (7, 9)], 0, 0),
        ([(7, 9)], 0, 0),
        ([], 1, 0),
    ],
    ids=["whole", "gap", "overlap", "late begin", "early end", "deleted", "begins after deletion", "none"],
)
def test_slices_have_no_gap_but_where_messages_were_deleted(
    slices: list[tuple[int, int]], lost: int, doubled: int
) -> None:
    counted = counts.count_slices([slice_(*each) for each in slices], {("t", 0): 9}, {("t", 0): {7}})
    assert (counted.lost.total(), counted.doubled.total()) == (lost, doubled)


def verdict(first: int, last: int, rows: int) -> DriftVerdict:
    window, at = slice_(first, last), "2026-01-01T00:00:00Z"
    times = {"first_prediction_at": at, "last_prediction_at": at}
    fields = {"id": window.name, "window": window, "model": "m", "version": "1", "rows": rows, "verdict": "no_drift"}
    return DriftVerdict.model_validate({**fields, **times, "explanation": "", "archive": []})


@pytest.mark.parametrize(
    ("windows", "forgotten_through", "lost", "doubled"),
    [
        ([(0, 9, 7), (10, 19, 8)], -1, 0, 0),
        ([(0, 9, 7), (0, 9, 7)], -1, 0, 1),
        ([(0, 9, 7), (5, 19, 11)], -1, 0, 1),
        ([(0, 9, 6)], -1, 1, 0),
        ([(0, 9, 8)], -1, 0, 1),
        ([(0, 4, 4), (10, 19, 8)], -1, 1, 0),
        ([(0, 4, 4), (10, 19, 8)], 7, 0, 0),
        ([(0, 4, 4), (10, 19, 8)], 3, 1, 0),
    ],
    ids=[
        "whole",
        "twice",
        "overlap",
        "too few rows",
        "too many rows",
        "gap",
        "forgotten",
        "gap after what was forgotten",
    ],
)
def test_windows_are_judged_once_with_the_rows_of_the_archive(
    windows: list[tuple[int, int, int]], forgotten_through: int, lost: int, doubled: int
) -> None:
    rows = {
        slice_(0, 4): Counter({("m", "1"): 4, ("m", "2"): 1}),
        slice_(5, 9): Counter({("m", "1"): 3}),
        slice_(10, 19): Counter({("m", "1"): 8}),
    }
    counted = counts.count_verdicts([verdict(*each) for each in windows], rows, {("t", 0): forgotten_through})
    assert (counted.lost.total(), counted.doubled.total()) == (lost, doubled), counted.problems


def test_each_retrain_has_one_final_state_and_at_most_one_version() -> None:
    def state(retrain_id: str, name: str) -> ModelStateChanged:
        fields = {"retrain_id": retrain_id, "model": "m", "version": None, "explanation": "", "state": name}
        return ModelStateChanged.model_validate(fields)

    requested = dict.fromkeys(("good", "open", "twice", "two versions"), "kill")
    states = [state("good", "training"), state("good", "promoted"), state("open", "training")]
    states += [state("twice", "failed"), state("twice", "rejected"), state("two versions", "rejected")]
    counted = counts.count_retrains(requested, states, Counter({"good": 1, "two versions": 2}))
    assert (counted.lost, counted.doubled) == ({"kill": 1}, {"kill": 2})


def test_poison_is_one_dead_letter() -> None:
    poison = {("t", 0, offset): "zeros" for offset in range(3)}
    counted = counts.count_dead_letters(poison, Counter({("t", 0, 0): 1, ("t", 0, 1): 2}))
    assert (counted.lost, counted.doubled) == ({"zeros": 1}, {"zeros": 1})


def test_table_and_figures_sum_up_the_faults_of_a_name() -> None:
    results = [
        FaultResult("a", "kill", 3, 1.0, [], True),
        FaultResult("a", "kill", 4, 2.0, ["trainer"], True),
        FaultResult("b", "cut", 0, 0.5, [], False),
    ]
    counted = counts.Counts(Counter(a=1), Counter({counts.AT_THE_END: 2}))
    lines = {line.name: line for line in counts.summarize(results, counted)}
    assert lines.keys() == {"a", "b", counts.AT_THE_END}
    assert lines["a"] == Line("a", "kill", times=2, failed=7, seconds=2.0, lost=1, doubled=0, stuck=1)
    assert lines[counts.AT_THE_END].doubled == 2
    figures = counts.figures(results, counted)
    assert figures == {
        "faults": 3,
        "kinds": 2,
        "lost": 1,
        "doubled": 2,
        "stuck": 1,
        "longest_recovery_seconds": 2,
        "failed_requests_of_others": 0,
    }


def test_growth_of_memory_files_or_sockets_is_named() -> None:
    before = {"a": Resources(100, 20, 5)}
    assert counts.not_back(before, before) == []
    for grown in (Resources(500, 20, 5), Resources(100, 80, 5), Resources(100, 20, 80)):
        (problem,) = counts.not_back(before, {"a": grown})
        assert problem.startswith("a ")
