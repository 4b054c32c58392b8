"""The stack's settings: use cases from one variable, their ports, and messages about wrong values."""

import subprocess
import sys
from pathlib import Path

import pytest

from driftloop.settings import InvalidSettings, load_settings
from stack.settings import StackSettings

FLIGHTS = "usecases.flights:usecase"
HOURLY = "tests.support.regression_usecase:usecase"


def test_use_cases_are_read_from_one_variable_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", f"{FLIGHTS}, {HOURLY}")
    settings = load_settings(StackSettings)
    assert [(named.reference, named.use_case.name) for named in settings.use_case] == [
        (FLIGHTS, "flights"),
        (HOURLY, "hourly"),
    ]


def test_each_use_case_has_ports_a_step_above_those_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", f"{FLIGHTS},{HOURLY}")
    monkeypatch.setenv("DRIFTLOOP_PREDICTOR__PORT", "9000")
    monkeypatch.setenv("DRIFTLOOP_STACK__PORT_STEP", "3")
    settings = load_settings(StackSettings)
    assert [settings.port_of("predictor", position) for position in (0, 1)] == [9000, 9003]
    assert [settings.port_of("trainer", position) for position in (0, 1)] == [8002, 8005]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, ["DRIFTLOOP_USE_CASE", "module:name"]),
        ({"DRIFTLOOP_USE_CASE": ""}, ["DRIFTLOOP_USE_CASE", "module:name is expected"]),
        ({"DRIFTLOOP_USE_CASE": f"{FLIGHTS},flights"}, ["DRIFTLOOP_USE_CASE", "'flights'", "module:name is expected"]),
        ({"DRIFTLOOP_USE_CASE": f"{FLIGHTS},{FLIGHTS}"}, ["DRIFTLOOP_USE_CASE", "flights"]),
        (
            {"DRIFTLOOP_USE_CASE": f"{FLIGHTS},{HOURLY}", "DRIFTLOOP_STACK__PORT_STEP": "60000"},
            ["hourly", "68000", "DRIFTLOOP_PREDICTOR__PORT", "DRIFTLOOP_STACK__PORT_STEP"],
        ),
    ],
    ids=["missing", "empty", "no reference", "twice", "port too large"],
)
def test_wrong_values_are_named(variables: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTLOOP_USE_CASE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(StackSettings)
    assert not [word for word in words if word not in str(error.value)]
    assert "\n" not in str(error.value)


@pytest.mark.integration
def test_help_describes_settings_and_starts_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stack.up", "--help"],
        cwd=Path(__file__).resolve().parents[2],
        env={"PATH": "", "COLUMNS": "200", "DRIFTLOOP_STACK__DATA_DIR": str(tmp_path / "stack")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Examples:" in done.stdout
    assert "make up USE_CASE=" in done.stdout
    for name in ("USE_CASE", "STACK__MLFLOW_PORT", "STACK__PORT_STEP", "PREDICTOR__PORT", "TRAINER__PORT"):
        assert f"DRIFTLOOP_{name}" in done.stdout
    assert not (tmp_path / "stack").exists()
