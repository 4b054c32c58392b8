"""The stack's components and what it prints, without starting any."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from driftloop.events import DataSelection
from stack import prometheus, up
from stack.running import Stack
from stack.services import served_use_cases
from stack.settings import StackPorts, StackSettings, load_named

FLIGHTS = "usecases.flights:usecase"
HOURLY = "tests.support.regression_usecase:usecase"
OWN = {
    "DRIFTLOOP_USE_CASE",
    "DRIFTLOOP_REGISTRY__MODEL",
    "DRIFTLOOP_PREDICTOR__PORT",
    "DRIFTLOOP_PREDICTOR__DATA_DIR",
    "DRIFTLOOP_TRAINER__PORT",
    "DRIFTLOOP_PRODUCER__PREDICTOR_URL",
}

MakeStack = Callable[..., Stack]


@pytest.fixture
def make_stack(tmp_path: Path) -> MakeStack:
    """Describe a stack of use cases, which is not started."""

    def make(*references: str, **options: object) -> Stack:
        settings = StackSettings(
            use_case=tuple(map(load_named, references)), stack=StackPorts(data_dir=tmp_path / "my stack")
        )
        return Stack(settings, print, {"DRIFTLOOP_WINDOW__ROWS": "50"}, **options)  # type: ignore[arg-type]

    return make


def test_two_use_cases_share_all_but_predictor_and_trainer(make_stack: MakeStack) -> None:
    stack = make_stack(FLIGHTS, HOURLY)
    assert stack.components.keys() - {"prometheus"} == {
        *("kafka", "gcs", "mlflow", "drift_worker", "predictor", "trainer", "predictor-hourly", "trainer-hourly")
    }
    first, second = (served.environment for served in stack.use_cases)
    assert {name for name in first if first[name] != second[name]} == OWN
    assert first["DRIFTLOOP_WINDOW__ROWS"] == second["DRIFTLOOP_WINDOW__ROWS"] == "50"
    ports = [component.port for component in stack.components.values()]
    assert len(set(ports)) == len(ports)


def test_predictor_folder_of_a_use_case_does_not_depend_on_its_position(make_stack: MakeStack) -> None:
    folders = [
        {served.name: served.environment["DRIFTLOOP_PREDICTOR__DATA_DIR"] for served in make_stack(*order).use_cases}
        for order in ([FLIGHTS, HOURLY], [HOURLY, FLIGHTS])
    ]
    assert folders[0] == folders[1]


def test_port_in_use_is_reported_with_the_settings_of_a_further_use_case(make_stack: MakeStack) -> None:
    component = make_stack(FLIGHTS, HOURLY).components["trainer-hourly"]
    assert component.name == "trainer hourly"
    assert component.port_setting == "DRIFTLOOP_TRAINER__PORT or DRIFTLOOP_STACK__PORT_STEP"


def test_prometheus_scrapes_the_services_of_all_use_cases(make_stack: MakeStack) -> None:
    stack = make_stack(FLIGHTS, HOURLY)
    jobs = prometheus.local_config(stack.components.values())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {
        "predictor": ["127.0.0.1:8000", "127.0.0.1:8010"],
        "drift_worker": ["127.0.0.1:8001"],
        "trainer": ["127.0.0.1:8002", "127.0.0.1:8012"],
    }


def test_environment_file_quotes_values_for_a_shell() -> None:
    named = load_named(FLIGHTS)
    settings = StackSettings(use_case=(named._replace(use_case=replace(named.use_case, name="late $flights")),))
    (served,) = served_use_cases(settings, {})
    assert "export DRIFTLOOP_REGISTRY__MODEL='late $flights'" in list(served.environment_lines())


def test_addresses_name_predictor_trainer_and_environment_file_of_each_use_case(make_stack: MakeStack) -> None:
    lines = [line.split() for line in up.addresses(make_stack(FLIGHTS, HOURLY)).splitlines() if line]
    assert lines[0] == ["flights"]
    assert lines[1][:2] == ["predictor", "http://127.0.0.1:8000/docs"]
    assert lines[2][:2] == ["trainer", "http://127.0.0.1:8002/docs"]
    assert lines[3][-1].endswith("stack/env'")
    assert lines[4] == ["hourly"]
    assert lines[5][:2] == ["predictor", "http://127.0.0.1:8010/docs"]
    assert lines[7][-1].endswith("stack/env-hourly'")
    assert ["drift", "worker", "http://127.0.0.1:8001"] in lines  # its pages, not its API


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataSelection(), "all rows"),
        (DataSelection(last_rows=5_000), "the last 5,000 labelled rows"),
        (DataSelection(base_end=date(2026, 3, 1)), "rows before 2026-03-01"),
        (
            DataSelection(start=date(2026, 1, 1), base_end=date(2026, 3, 1), exclude_days=[date(2026, 2, 1)]),
            "rows from 2026-01-01 on, before 2026-03-01, without 1 days",
        ),
    ],
    ids=["all", "last rows", "up to a day", "days"],
)
def test_selected_rows_are_described(data: DataSelection, words: str) -> None:
    assert up.describe(data) == words
