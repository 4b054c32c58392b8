"""Reports of outcomes are validated strictly, and stored without delaying predictions."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sklearn.linear_model import LinearRegression, LogisticRegression

from driftloop.events import Outcome, OutcomeValue, is_new_event_id, new_event_id
from predictor.http import outcomes
from predictor.outbox.outbox import Outbox
from tests.support.predictor_app import FRAME, StaticModelManager, outbox_events, serving_model

ID = new_event_id()
REPORT = {"id": ID, "index": 0, "outcome": 1}


def post(client: TestClient, *reports: dict[str, Any]) -> httpx.Response:
    response: httpx.Response = client.post("/outcomes", json={"outcomes": list(reports)})
    return response


def stored(outbox: Outbox) -> list[tuple[str | None, int | None, OutcomeValue]]:
    events = [event for event in outbox_events(outbox) if isinstance(event, Outcome)]
    return [(event.prediction_id, event.index, event.outcome) for event in events]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outcome", None),
        ("outcome", [1]),
        ("index", True),
        ("index", "0"),
        ("index", 0.0),
        ("index", -1),
        ("index", 2**31),
        ("id", 7),
        ("id", ""),
        ("id", "two words"),
        ("id", "a\n"),
        ("id", "größe"),
        ("id", "a" * 257),
        ("time", "2013-07-01"),
    ],
)
def test_invalid_field_is_422_with_its_place_and_nothing_is_stored(
    client: TestClient, outbox: Outbox, field: str, value: Any
) -> None:
    response = post(client, REPORT, {**REPORT, field: value})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "outcomes", 1, field]
    assert not stored(outbox)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"outcomes": []}', '{"outcomes": null}', '{"outcomes": [], "x": 1}'])
def test_body_without_outcomes_is_422(client: TestClient, body: str) -> None:
    assert client.post("/outcomes", content=body).status_code == 422


def test_numbers_without_fraction_and_with_one_are_stored_as_floats(
    client: TestClient, manager: StaticModelManager, outbox: Outbox
) -> None:
    manager.serving = serving_model(LinearRegression().fit(FRAME, [0, 0, 1, 1]), method="predict")
    assert post(client, REPORT, {**REPORT, "index": 1, "outcome": 0.25}).json() == {"accepted": 2, "unmatchable": 0}
    assert stored(outbox) == [(ID, 0, 1.0), (ID, 1, 0.25)]


CLASSES: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "numbers": ([0, 1], [0, 1, 1.0, True, False], [2.5, 2, -1, "1", "late"]),
    "booleans": ([False, True], [True, 0, 1.0], [2, "True"]),
    "texts": (["late", "on time"], ["late"], ["Late", "", 1, True]),
    "numbers, three": ([1, 2, 3], [1, 2, 3.0, True], [0, 4, "3"]),
}


@pytest.mark.parametrize("case", CLASSES)
@pytest.mark.parametrize("method", ["predict_proba", "predict"])
def test_outcome_that_is_no_class_of_the_version_in_service_is_422_with_its_place(
    client: TestClient, manager: StaticModelManager, outbox: Outbox, case: str, method: str
) -> None:
    classes, known, unknown = CLASSES[case]
    manager.serving = serving_model(LogisticRegression().fit(FRAME, [*classes, *classes][:4]), method=method)
    for outcome in unknown:
        response = post(client, {**REPORT, "outcome": known[0]}, {**REPORT, "outcome": outcome})
        (problem,) = response.json()["detail"]
        assert (response.status_code, problem["type"]) == (422, "unknown_label"), outcome
        assert problem["loc"] == ["body", "outcomes", 1, "outcome"]
        assert "DRIFTLOOP_PREDICTOR__UNKNOWN_LABELS" in problem["msg"]
    assert not stored(outbox)
    assert post(client, *({**REPORT, "outcome": outcome} for outcome in known)).status_code == 202


def test_outcomes_of_a_class_that_is_not_known_yet_can_be_let_in(
    make_client: Callable[..., Any], outbox: Outbox
) -> None:
    with make_client(unknown_labels="accept") as client:
        assert post(client, {**REPORT, "outcome": 2.5}).status_code == 202
    assert stored(outbox) == [(ID, 0, 2.5)]


def test_outcomes_are_accepted_while_no_version_serves(client: TestClient, manager: StaticModelManager) -> None:
    manager.serving = None
    assert post(client, {**REPORT, "outcome": 2.5}).status_code == 202


@pytest.mark.parametrize("minutes", [4, 6])
def test_time_in_the_future_is_422_beyond_what_clocks_differ_by(
    client: TestClient, outbox: Outbox, minutes: int
) -> None:
    time = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
    own = post(client, REPORT, {**REPORT, "time": time})
    header = client.post("/outcomes", json={"outcomes": [REPORT]}, headers={"Driftloop-Time": time})
    if minutes < 5:
        assert (own.status_code, header.status_code, len(stored(outbox))) == (202, 202, 3)
        return
    for response, location in ((own, ["body", "outcomes", 1, "time"]), (header, ["header", "Driftloop-Time"])):
        (problem,) = response.json()["detail"]
        assert (response.status_code, problem["type"], problem["loc"]) == (422, "time_in_future", location)
    assert not stored(outbox)


@pytest.mark.parametrize(
    "foreign",
    ["order-17", ID.upper(), f"urn:uuid:{ID}", "9b2f8c1e-3d64-4f0e-8a55-0c1d2e3f4a5b"],
    ids=["text", "upper case", "urn", "version 4"],
)
def test_outcomes_of_ids_that_no_predictor_gives_are_accepted_and_counted(
    client: TestClient, outbox: Outbox, foreign: str
) -> None:
    before = counted(client)
    assert post(client, REPORT, {**REPORT, "id": foreign}).json() == {"accepted": 2, "unmatchable": 1}
    assert len(stored(outbox)) == 2
    assert counted(client) == before + 1


def counted(client: TestClient) -> float:
    name = "driftloop_predictor_unmatchable_outcomes_total "
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


def test_ids_of_responses_can_match(client: TestClient) -> None:
    predicted = client.post("/predict", json={"instances": [{"x": 1.5, "n": 2}]})
    assert is_new_event_id(predicted.headers["Driftloop-Id"])
    assert post(client, {**REPORT, "id": predicted.json()["id"]}).json()["unmatchable"] == 0


def test_outcome_may_have_a_key_and_a_time_of_its_own(client: TestClient, outbox: Outbox) -> None:
    headers = {"Driftloop-Time": "2013-07-03T00:00:00Z"}
    reports = [
        {"key": "order-17", "outcome": 1, "time": "2013-07-01T05:00:00-04:00"},
        {"key": "größe 17", "outcome": 0},
        {**REPORT, "time": "2013-07-02T05:00:00Z"},
    ]
    response = client.post("/outcomes", json={"outcomes": reports}, headers=headers)
    assert response.json() == {"accepted": 3, "unmatchable": 0}
    events = [event for event in outbox_events(outbox) if isinstance(event, Outcome)]
    assert [f"{event.time.astimezone(UTC):%d %H:%M}" for event in events] == ["01 09:00", "03 00:00", "02 05:00"]
    assert [(event.model, event.key, event.prediction_id, event.index) for event in events] == [
        ("m", "order-17", None, None),
        ("m", "größe 17", None, None),
        (None, None, ID, 0),
    ]
    assert [event.message_key for event in events] == ["order-17", "größe 17", ID]


@pytest.mark.parametrize(
    "report",
    [
        {"outcome": 1},
        {"id": ID, "outcome": 1},
        {"index": 0, "outcome": 1},
        {**REPORT, "key": "a"},
        {"key": "a", "index": 0, "outcome": 1},
        {"key": None, "outcome": 1},
    ],
)
def test_outcome_names_its_row_by_id_and_index_or_by_key(client: TestClient, outbox: Outbox, report: Any) -> None:
    response = post(client, REPORT, report)
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["body", "outcomes", 1])
    assert not stored(outbox)


def test_time_header_is_the_time_of_the_outcomes(client: TestClient, outbox: Outbox) -> None:
    body = {"outcomes": [REPORT]}
    headers = {"Driftloop-Time": "2013-07-01T05:00:00Z"}
    assert client.post("/outcomes", json=body, headers=headers).status_code == 202
    assert f"{outbox_events(outbox)[0].time:%Y-%m-%d %H:%M}" == "2013-07-01 05:00"
    response = client.post("/outcomes", json=body, headers={"Driftloop-Time": "yesterday"})
    assert (response.status_code, response.json()["detail"][0]["loc"]) == (422, ["header", "Driftloop-Time"])


def test_largest_report_is_stored_in_order_and_one_more_outcome_is_rejected(client: TestClient, outbox: Outbox) -> None:
    reports = [{**REPORT, "index": index} for index in range(outcomes.MAX_OUTCOMES + 1)]
    assert post(client, *reports).status_code == 422
    assert post(client, *reports[:-1]).json() == {"accepted": outcomes.MAX_OUTCOMES, "unmatchable": 0}
    assert [index for _, index, _ in stored(outbox)] == list(range(outcomes.MAX_OUTCOMES))


def test_predictions_are_answered_while_a_report_is_parsed_and_stored(
    server: str, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, predicted = threading.Event(), threading.Event()

    class SlowRequest(outcomes.OutcomesRequest):
        @classmethod
        def model_validate_json(cls, *arguments: Any, **options: Any) -> Any:
            parsing.set()
            assert predicted.wait(10)
            return super().model_validate_json(*arguments, **options)

    monkeypatch.setattr(outcomes, "OutcomesRequest", SlowRequest)
    body = json.dumps({"outcomes": [REPORT] * 1_000})
    with httpx.Client(base_url=server) as client, ThreadPoolExecutor() as pool:
        report = pool.submit(httpx.post, f"{server}/outcomes", content=body, timeout=30)
        assert parsing.wait(10)
        assert client.post("/predict", json={"instances": [{"x": 1.5, "n": 2}]}).status_code == 200
        predicted.set()
        assert report.result().json() == {"accepted": 1_000, "unmatchable": 0}
    assert len(stored(outbox)) == 1_000
