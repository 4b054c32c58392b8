"""Under requests of all protocols and a swap, each response is exact, and its event is stored once.

MIXED_LOAD_SECONDS=30 .venv/bin/python -m pytest services/predictor/tests/test_mixed_load.py -s
"""

import asyncio
import os
import random
from collections import Counter
from typing import Any, NamedTuple

import httpx
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType
from mlflow.types.schema import Schema as Columns
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from driftloop.events import Prediction
from driftloop.registry.loading import LoadedModel
from predictor.outbox.outbox import Outbox
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import ServingModel
from tests.support.predictor_app import StaticModelManager, outbox_events

pytestmark = pytest.mark.integration

SECONDS = float(os.environ.get("MIXED_LOAD_SECONDS", "4"))
CONNECTIONS = 64
LARGE = 2**53  # and LARGE + 1, which floats cannot tell apart
WORDS = ["a", "b", None]
IDS = [LARGE, LARGE + 1, 5, None]
SIGNATURE = ModelSignature(
    Columns([ColSpec(DataType.long, "id_number", required=False), ColSpec(DataType.string, "word", required=False)])
)


def version(number: str, targets: list[float]) -> ServingModel:
    """Return a version whose predictions are the targets of known ids and words."""
    rows = pd.DataFrame(
        {"id_number": pd.array([LARGE, LARGE + 1, 5] * 3).astype("int64"), "word": ["a"] * 3 + ["b"] * 3 + [np.nan] * 3}
    )
    encoders = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["id_number", "word"]))
    estimator = make_pipeline(encoders, LinearRegression()).fit(rows, targets)
    loaded = LoadedModel(estimator, Model(signature=SIGNATURE), None)
    schema = build_schema(SIGNATURE, 1_000)
    schema.missing_values = {"word": "nan"}
    return ServingModel(number, schema, loaded)


class SentRequest(NamedTuple):
    """A request's rows and its response."""

    rows: list[tuple[int | None, str | None]]
    status: int
    id: str
    version: str
    predictions: list[float]


def request_body(path: str, rows: list[tuple[int | None, str | None]]) -> dict[str, Any]:
    records = [{"id_number": number, "word": word} for number, word in rows]
    if path.endswith("infer"):
        columns = {"id_number": "INT64", "word": "BYTES"}
        return {
            "inputs": [
                {"name": name, "datatype": datatype, "shape": [len(rows)], "data": [record[name] for record in records]}
                for name, datatype in columns.items()
            ]
        }
    return {"dataframe_records" if path == "/invocations" else "instances": records}


async def send_until_stopped(
    client: httpx.AsyncClient, source: random.Random, stop: asyncio.Event, sent: list[SentRequest]
) -> None:
    while not stop.is_set():
        path = source.choice(["/predict", "/v1/models/m:predict", "/v2/models/m/infer", "/invocations"])
        # An id next to a null is rejected, so a request has an id in all its rows or in none. MLflow casts no null to a
        # long.
        ids = [None] if path != "/invocations" and source.random() < 0.3 else IDS[:3]
        rows = [(source.choice(ids), source.choice(WORDS)) for _ in range(source.choice([1, 1, 1, 2, 5, 20]))]
        response = await client.post(path, json=request_body(path, rows))
        body = response.json()
        predictions = body["outputs"][0]["data"] if "outputs" in body else body.get("predictions", [])
        headers = response.headers
        sent.append(
            SentRequest(
                rows,
                response.status_code,
                headers.get("driftloop-id", ""),
                headers.get("driftloop-version", ""),
                predictions,
            )
        )


async def send_load(url: str, manager: StaticModelManager, new: ServingModel, seed: int) -> list[SentRequest]:
    sent: list[SentRequest] = []
    stop = asyncio.Event()
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=CONNECTIONS)) as client:
        senders = [
            asyncio.create_task(send_until_stopped(client, random.Random(seed + number), stop, sent))
            for number in range(CONNECTIONS)
        ]
        await asyncio.sleep(SECONDS / 2)
        manager.serving = new
        await asyncio.sleep(SECONDS / 2)
        stop.set()
        await asyncio.gather(*senders)
    return sent


def test_responses_are_exact_and_events_are_stored_once_under_mixed_load(
    serve: Any, manager: StaticModelManager, outbox: Outbox, random_source: random.Random
) -> None:
    versions = {
        "7": version("7", [1.0, 2.0, 3.0, 11.0, 12.0, 13.0, 21.0, 22.0, 23.0]),
        "8": version("8", [5.0, 6.0, 7.0, 35.0, 36.0, 37.0, 65.0, 66.0, 67.0]),
    }
    manager.serving = versions["7"]
    with serve(manager, outbox, max_rows=1_000) as url:
        sent = asyncio.run(send_load(url, manager, versions["8"], random_source.randrange(2**32)))
    stored = [event for event in outbox_events(outbox, len(sent) + 1) if isinstance(event, Prediction)]
    by_id = {event.id: event for event in stored}
    counts = Counter((request.status, request.version) for request in sent)
    print(f"\n{len(sent):,} requests of {CONNECTIONS} connections in {SECONDS:g} s: {dict(counts)}")
    assert set(counts) == {(200, "7"), (200, "8")}
    assert len(by_id) == len(stored) == len(sent)
    for request in sent:
        frame = pd.DataFrame(
            {
                "id_number": np.array(
                    [np.nan if number is None else number for number, _ in request.rows],
                    dtype="float64" if request.rows[0][0] is None else "int64",
                ),
                "word": np.array([np.nan if word is None else word for _, word in request.rows], dtype=object),
            }
        )
        expected = versions[request.version].loaded.estimator.predict(frame)
        assert request.predictions == pytest.approx(expected, abs=1e-9), request
        event = by_id[request.id]
        assert (event.version, event.predictions) == (request.version, request.predictions)
        assert event.features == {
            "id_number": [number for number, _ in request.rows],
            "word": [word for _, word in request.rows],
        }
