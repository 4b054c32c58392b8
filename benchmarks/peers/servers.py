"""How each peer is started, asked and understood. All serve the same saved model in one process where they can."""

import json
import os
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.flights_model import MODEL, Row, Saved
from tests.support.peer_environments import environment
from tests.support.ports import reserve_ports
from tests.support.processes import Server
from tests.support.stack_fixture import ROOT
from tests.support.wrk import TIMEOUT_SECONDS

# One OpenMP thread each: on few processors the trees' threads wait for one another and for the event loop. driftloop's
# predictor does the same by itself.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

MLSERVER_MAX_BATCH_ROWS = 128  # as many as there are connections at most
MLSERVER_MAX_BATCH_SECONDS = 0.005
# BentoML answers 503 where it believes that a request will not be answered in this time, so it has to be far above what
# one waits with 128 connections; it does not delay anything by itself.
BENTOML_MAX_LATENCY_MS = 10_000


@dataclass(frozen=True)
class Peer:
    """A server, not started, and how to talk to it."""

    server: Server
    url: str
    """Where rows are sent to."""
    body: Callable[[Sequence[Row]], str]
    scores: Callable[[Any], list[float]]
    """The probabilities in an answer's JSON."""


def instances(rows: Sequence[Row]) -> str:
    """Rows as driftloop takes them, and the two peers that stand for plain FastAPI."""
    return json.dumps({"instances": list(rows)})


def predictions(answer: Any) -> list[float]:
    """What these answer."""
    return answer["predictions"]  # type: ignore[no-any-return]


def fastapi(name: str, saved: Saved, logs: Path) -> Peer:
    """``floor`` or ``plain``, in driftloop's own environment: the same FastAPI, pydantic and uvicorn."""
    (port,) = reserve_ports(1)
    command = [
        *(str(ROOT / ".venv/bin/python"), "-m", "uvicorn", f"benchmarks.peers.{name}:app", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
    ]
    server = Server(name, command, _settings(saved), f"http://127.0.0.1:{port}/readyz", logs / f"{name}.log", ROOT)
    return Peer(server, f"http://127.0.0.1:{port}/predict", instances, predictions)


def mlflow(saved: Saved, logs: Path) -> Peer:
    """MLflow's own scoring server, as its documentation starts it."""
    programs, (port,) = environment("mlflow"), reserve_ports(1)
    command = [
        *(str(programs / "mlflow"), "models", "serve", "--model-uri", str(saved.folder), "--port", str(port)),
        *("--env-manager", "local"),
    ]
    settings = {**_settings(saved, programs), "MLFLOW_DISABLE_TELEMETRY": "true"}
    url = f"http://127.0.0.1:{port}"
    server = Server("mlflow", command, settings, f"{url}/ping", logs / "mlflow-serve.log", ROOT)
    return Peer(server, f"{url}/invocations", _split, lambda answer: [row[1] for row in answer["predictions"]])


def mlserver(saved: Saved, logs: Path, parallel_workers: int) -> Peer:
    """MLServer with adaptive batching; with 0 ``parallel_workers`` the model runs in the server's own process."""
    programs, (http, grpc, metrics) = environment("mlserver"), reserve_ports(3)
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
    settings = {**_settings(saved, programs), "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = logs / f"mlserver-{parallel_workers}.log"
    server = Server("mlserver", [str(programs / "mlserver"), "start", "."], settings, f"{url}/ready", log, folder)
    kinds = {column.name: column.type.name for column in saved.signature.inputs}
    return Peer(server, f"{url}/infer", lambda rows: _tensors(rows, kinds), _second_of_pairs)


def bentoml(saved: Saved, logs: Path) -> Peer:
    """BentoML with adaptive batching and without access log."""
    programs, (port,) = environment("bentoml"), reserve_ports(1)
    settings = {
        **_settings(saved, programs),
        "BENTOML_HOME": str(logs / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENCHMARK_MAX_LATENCY_MS": str(BENTOML_MAX_LATENCY_MS),
    }
    command = [
        *(str(programs / "bentoml"), "serve", "benchmarks.peers.bento:Flights", "--working-dir", str(ROOT)),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    url = f"http://127.0.0.1:{port}"
    server = Server("bentoml", command, settings, f"{url}/readyz", logs / "bentoml.log", ROOT)
    return Peer(server, f"{url}/predict", lambda rows: json.dumps({"rows": list(rows)}), list)


def post(url: str, body: str) -> Any:
    """The JSON answer to one request."""
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310  # our own
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
        return json.load(answer)


def _settings(saved: Saved, programs: Path | None = None) -> Mapping[str, str]:
    path = f"{programs}:{os.environ['PATH']}" if programs else os.environ["PATH"]
    return {**ONE_THREAD, "BENCHMARK_MODEL": str(saved.folder), "PATH": path, "PYTHONPATH": str(ROOT)}


def _split(rows: Sequence[Row]) -> str:
    columns = list(rows[0])
    return json.dumps({"dataframe_split": {"columns": columns, "data": [[row[c] for c in columns] for row in rows]}})


def _tensors(rows: Sequence[Row], kinds: Mapping[str, str]) -> str:
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


def _second_of_pairs(answer: Any) -> list[float]:
    return answer["outputs"][0]["data"][1::2]  # type: ignore[no-any-return]
