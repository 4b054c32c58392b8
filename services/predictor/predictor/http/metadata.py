"""What the protocols' clients ask before they ask for predictions: is there a server, a model, is it ready."""

from importlib.metadata import version as installed
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from mlflow.version import VERSION as MLFLOW

from driftloop.telemetry.health import Health
from predictor.http.protocols.open_inference_v2 import tensors
from predictor.serving.model_manager import Champion

NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready"}}
PROBLEMS: dict[int | str, dict[str, Any]] = {404: {"description": "No such model, or version"}, **NOT_READY}


def router(model: str, champion: Champion, health: Health) -> APIRouter:
    """The Open Inference Protocol's, KServe V1's and MLflow's own."""
    router = APIRouter()

    def unknown(name: str, version: str | None = None) -> JSONResponse | None:
        serving = champion.serving
        if name != model:
            return JSONResponse({"error": f"the model here is {model}, and not {name}"}, 404)
        if version is not None and (serving is None or version != serving.version):
            there = f"version {serving.version}" if serving else "no version"
            return JSONResponse({"error": f"{there} of {model} is in service, and not version {version}"}, 404)
        return None

    def ready() -> bool:
        return champion.serving is not None and not health.missing

    @router.get("/v2", tags=["Open Inference Protocol"])
    def server() -> dict[str, Any]:
        """The server's name, version and extensions."""
        return {"name": "driftloop", "version": installed("driftloop"), "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live", tags=["Open Inference Protocol"], responses={503: {"description": "It is stuck"}})
    def live() -> JSONResponse:
        """Whether the process makes progress."""
        return JSONResponse({"live": health.stuck is None}, 200 if health.stuck is None else 503)

    @router.get("/v2/health/ready", tags=["Open Inference Protocol"], responses=NOT_READY)
    def server_ready() -> JSONResponse:
        """Whether requests for predictions are answered."""
        return JSONResponse({"ready": ready()}, 200 if ready() else 503)

    @router.get("/v2/models/{name}", tags=["Open Inference Protocol"], responses=PROBLEMS)
    @router.get("/v2/models/{name}/versions/{version}", tags=["Open Inference Protocol"], responses=PROBLEMS)
    def metadata(name: str, version: str | None = None) -> JSONResponse:
        """The tensors that the model takes and gives."""
        if refusal := unknown(name, version):
            return refusal
        serving = champion.serving
        if serving is None:
            return JSONResponse({"error": "no version is in service"}, 503, {"Retry-After": "2"})
        return JSONResponse(
            {
                "name": name,
                "versions": [serving.version],
                "platform": "mlflow_sklearn",
                "inputs": [
                    {"name": column.name, "datatype": column.type.tensor, "shape": [-1, 1]}
                    for column in serving.schema.columns.values()
                ],
                "outputs": [
                    {"name": tensor.name, "datatype": tensor.datatype, "shape": [-1, tensor.array.shape[1]]}
                    for tensor in (tensors(serving.sample) if serving.sample else [])
                ],
            }
        )

    @router.get("/v2/models/{name}/ready", tags=["Open Inference Protocol"], responses=PROBLEMS)
    @router.get("/v2/models/{name}/versions/{version}/ready", tags=["Open Inference Protocol"], responses=PROBLEMS)
    def model_ready(name: str, version: str | None = None) -> JSONResponse:
        """Whether the model answers."""
        return unknown(name, version) or JSONResponse({"name": name, "ready": ready()}, 200 if ready() else 503)

    @router.post("/v2/models/{name}/infer", include_in_schema=False)
    @router.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
    @router.post("/v1/models/{name}:predict", include_in_schema=False)
    def elsewhere(name: str, version: str | None = None) -> JSONResponse:
        """The front answers for the model that is here."""
        return unknown(name, version) or JSONResponse({"error": "not found"}, 404)

    @router.get("/", tags=["KServe V1"])
    def root() -> dict[str, str]:
        """What KServe's client takes for a sign of life."""
        return {"status": "alive"}

    @router.get("/v1/models", tags=["KServe V1"])
    def models() -> dict[str, list[str]]:
        """The one model."""
        return {"models": [model]}

    @router.get("/v1/models/{name}", tags=["KServe V1"], responses=PROBLEMS)
    def model_v1(name: str) -> JSONResponse:
        """Whether the model answers."""
        return unknown(name) or JSONResponse({"name": name, "ready": ready()}, 200 if ready() else 503)

    @router.get("/ping", tags=["MLflow"], response_class=PlainTextResponse, responses=NOT_READY)
    @router.get("/health", tags=["MLflow"], response_class=PlainTextResponse, responses=NOT_READY)
    def ping() -> Response:
        """Whether the model answers."""
        return PlainTextResponse("\n", 200 if ready() else 503)

    @router.get("/version", tags=["MLflow"], response_class=PlainTextResponse)
    def mlflow_version() -> Response:
        """MLflow's version."""
        return PlainTextResponse(MLFLOW)

    return router
