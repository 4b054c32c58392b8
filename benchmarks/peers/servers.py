"""Commands, requests and responses of each peer. All serve the same saved model, in one process where possible."""

import json
import os
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.flights_model import MODEL, Row, SavedModel
from tests.support.peer_environments import ensure_environment
from tests.support.ports import reserve_ports
from tests.support.processes import Server
from tests.support.stack_fixture import ROOT
from tests.support.wrk import TIMEOUT_SECONDS

# One OpenMP thread each: on few processors the threads of the trees wait for one another and for the event loop.
# driftloop's predictor sets this itself.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

MLSERVER_MAX_BATCH_ROWS = 128  # the maximum number of connections
MLSERVER_MAX_BATCH_SECONDS = 0.005
# BentoML responds with 503 if it predicts that a request would take longer, so this has to be far above the latency
# with 128 connections. It does not delay anything.
BENTOML_MAX_LATENCY_MS = 10_000


@dataclass(frozen=True)
class Peer:
    """A server, not started, with its request and response format."""

    server: Server
    url: str
    """The address that rows are sent to."""
    encode_rows: Callable[[Sequence[Row]], str]
    parse_scores: Callable[[Any], list[float]]
    """Returns the probabilities of a JSON response."""


def encode_instances(rows: Sequence[Row]) -> str:
    """Return rows as the body that driftloop and the two FastAPI peers accept."""
    return json.dumps({"instances": list(rows)})


def parse_predictions(response: Any) -> list[float]:
    """Return the predictions of a JSON response of driftloop or a FastAPI peer."""
    return response["predictions"]  # type: ignore[no-any-return]


def fastapi_peer(name: str, module: str, saved: SavedModel, logs: Path) -> Peer:
    """Return an app of ``benchmarks.peers`` in driftloop's environment: the same FastAPI, pydantic and uvicorn."""
    (port,) = reserve_ports(1)
    command = [
        *(str(ROOT / ".venv/bin/python"), "-m", "uvicorn", f"benchmarks.peers.{module}:app", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
    ]
    server = Server(name, command, _environment(saved), f"http://127.0.0.1:{port}/readyz", logs / f"{name}.log", ROOT)
    return Peer(server, f"http://127.0.0.1:{port}/predict", encode_instances, parse_predictions)


def mlflow_peer(saved: SavedModel, logs: Path) -> Peer:
    """Return MLflow's scoring server, started as in its documentation."""
    programs, (port,) = ensure_environment("mlflow"), reserve_ports(1)
    command = [
        *(str(programs / "mlflow"), "models", "serve", "--model-uri", str(saved.folder), "--port", str(port)),
        *("--env-manager", "local"),
    ]
    settings = {**_environment(saved, programs), "MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://127.0.0.1:{port}"
    server = Server("mlflow", command, settings, f"{url}/ping", logs / "mlflow-serve.log", ROOT)
    return Peer(
        server,
        f"{url}/invocations",
        _encode_dataframe_split,
        lambda response: [row[1] for row in response["predictions"]],
    )


def mlserver_peer(saved: SavedModel, logs: Path, parallel_workers: int) -> Peer:
    """Return MLServer with adaptive batching; without ``parallel_workers`` the model runs in the server's process."""
    programs, (http, grpc, metrics) = ensure_environment("mlserver"), reserve_ports(3)
    folder = logs / f"mlserver-{parallel_workers}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                **{"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics},
                **{"parallel_workers": parallel_workers, "debug": False, "use_structured_logging": False},
            }
        )
    )
    (folder / "model-settings.json").write_text(
        json.dumps(
            {
                "name": MODEL,
                "implementation": "mlserver_mlflow.MLflowRuntime",
                "max_batch_size": MLSERVER_MAX_BATCH_ROWS,
                "max_batch_time": MLSERVER_MAX_BATCH_SECONDS,
                "parameters": {"uri": str(saved.folder)},
            }
        )
    )
    url = f"http://127.0.0.1:{http}/v2/models/{MODEL}"
    settings = {**_environment(saved, programs), "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = logs / f"mlserver-{parallel_workers}.log"
    server = Server("mlserver", [str(programs / "mlserver"), "start", "."], settings, f"{url}/ready", log, folder)
    kinds = {column.name: column.type.name for column in saved.signature.inputs}
    return Peer(server, f"{url}/infer", lambda rows: _encode_tensors(rows, kinds), _parse_second_class)


def bentoml_peer(saved: SavedModel, logs: Path) -> Peer:
    """Return BentoML with adaptive batching and without access log."""
    programs, (port,) = ensure_environment("bentoml"), reserve_ports(1)
    settings = {
        **_environment(saved, programs),
        "BENTOML_HOME": str(logs / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENCHMARK_MAX_LATENCY_MS": str(BENTOML_MAX_LATENCY_MS),
    }
    command = [
        *(str(programs / "bentoml"), "serve", "benchmarks.peers.bentoml_app:Flights", "--working-dir", str(ROOT)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    server = Server("bentoml", command, settings, f"{url}/readyz", logs / "bentoml.log", ROOT)
    return Peer(server, f"{url}/predict", lambda rows: json.dumps({"rows": list(rows)}), list)


def post(url: str, body: str) -> Any:
    """Send one request; return its JSON response."""
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310  # a local address
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
        return json.load(response)


def _environment(saved: SavedModel, programs: Path | None = None) -> Mapping[str, str]:
    path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    return {**ONE_THREAD, "BENCHMARK_MODEL": str(saved.folder), "PATH": path, "PYTHONPATH": str(ROOT)}


def _encode_dataframe_split(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    return json.dumps({"dataframe_split": {"columns": columns, "data": [[row[c] for c in columns] for row in rows]}})


def _encode_tensors(rows: Sequence[Row], kinds: Mapping[str, str]) -> str:
    datatypes = {"double": "FP64", "long": "INT64", "string": "BYTES"}
    inputs = [
        {
            "name": name,
            "shape": [len(rows), 1],
            "datatype": datatypes[kind],
            "data": [row[name] for row in rows],
            **({"parameters": {"content_type": "str"}} if kind == "string" else {}),
        }
        for name, kind in kinds.items()
    ]
    return json.dumps({"parameters": {"content_type": "pd"}, "inputs": inputs})


def _parse_second_class(response: Any) -> list[float]:
    return response["outputs"][0]["data"][1::2]  # type: ignore[no-any-return]
