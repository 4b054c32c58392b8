"""Metadata and health routes of the protocols: clients call them before they send prediction requests."""

from importlib.metadata import version as installed_version
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from mlflow.version import VERSION as MLFLOW_VERSION

from predictor.http.dependencies import ApiDependencies, Dependencies
from predictor.http.protocols.open_inference_v2 import to_tensors
from predictor.serving.serving_model import ServingModel

Responses = dict[int | str, dict[str, Any]]

NOT_READY: Responses = {503: {"description": "Not ready"}}
ERROR_RESPONSES: Responses = {404: {"description": "No such model or version"}, **NOT_READY}

router = APIRouter()
open_inference = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
kserve_v1 = APIRouter(tags=["KServe V1"])
mlflow = APIRouter(tags=["MLflow"])


@open_inference.get("")
def server_metadata() -> dict[str, Any]:
    """Return the server's name, version and extensions."""
    return {"name": "driftloop", "version": installed_version("driftloop"), "extensions": ["binary_tensor_data"]}


@open_inference.get("/health/live", responses={503: {"description": "Stalled"}})
def server_live(api: Dependencies) -> JSONResponse:
    """Return whether the process makes progress."""
    live = api.health.stalled_reason is None
    return JSONResponse({"live": live}, 200 if live else 503)


@open_inference.get("/health/ready", responses=NOT_READY)
def server_ready(api: Dependencies) -> JSONResponse:
    """Return whether prediction requests are served."""
    return JSONResponse({"ready": api.is_ready}, _ready_status(api))


@open_inference.get("/models/{name}", responses=ERROR_RESPONSES)
@open_inference.get("/models/{name}/versions/{version}", responses=ERROR_RESPONSES)
def model_metadata(api: Dependencies, name: str, version: str | None = None) -> JSONResponse:
    """Return the model's input and output tensors."""
    if not_served := _not_served(api, name, version):
        return not_served
    serving = api.manager.serving
    if serving is None:
        return JSONResponse({"error": "no version is in service"}, 503, {"Retry-After": "2"})
    return JSONResponse(
        {
            "name": name,
            "versions": [serving.version],
            "platform": "mlflow_sklearn",
            "inputs": _input_tensors(serving),
            "outputs": _output_tensors(serving),
        }
    )


@open_inference.get("/models/{name}/ready", responses=ERROR_RESPONSES)
@open_inference.get("/models/{name}/versions/{version}/ready", responses=ERROR_RESPONSES)
def model_ready(api: Dependencies, name: str, version: str | None = None) -> JSONResponse:
    """Return whether the model is ready."""
    return _not_served(api, name, version) or JSONResponse({"name": name, "ready": api.is_ready}, _ready_status(api))


@router.post("/v2/models/{name}/infer", include_in_schema=False)
@router.post("/v2/models/{name}/versions/{version}/infer", include_in_schema=False)
@router.post("/v1/models/{name}:predict", include_in_schema=False)
def wrong_model(api: Dependencies, name: str, version: str | None = None) -> JSONResponse:
    """Return an error for another model; the gateway serves requests for the model that is here."""
    return _not_served(api, name, version) or JSONResponse({"error": "not found"}, 404)


@kserve_v1.get("/")
def root() -> dict[str, str]:
    """Return the status that KServe's client expects of a live server."""
    return {"status": "alive"}


@kserve_v1.get("/v1/models")
def list_models(api: Dependencies) -> dict[str, list[str]]:
    """Return the name of the only model."""
    return {"models": [api.model_name]}


@kserve_v1.get("/v1/models/{name}", responses=ERROR_RESPONSES)
def model_ready_v1(api: Dependencies, name: str) -> JSONResponse:
    """Return whether the model is ready."""
    return _not_served(api, name) or JSONResponse({"name": name, "ready": api.is_ready}, _ready_status(api))


@mlflow.get("/ping", response_class=PlainTextResponse, responses=NOT_READY)
@mlflow.get("/health", response_class=PlainTextResponse, responses=NOT_READY)
def ping(api: Dependencies) -> Response:
    """Return 200 if the model is ready."""
    return PlainTextResponse("\n", _ready_status(api))


@mlflow.get("/version", response_class=PlainTextResponse)
def mlflow_version() -> Response:
    """Return MLflow's version."""
    return PlainTextResponse(MLFLOW_VERSION)


for protocol_router in (open_inference, kserve_v1, mlflow):
    router.include_router(protocol_router)


def _ready_status(api: ApiDependencies) -> int:
    return 200 if api.is_ready else 503


def _not_served(api: ApiDependencies, name: str, version: str | None = None) -> JSONResponse | None:
    """Return an error response if the model or the version is not the one in service."""
    if name != api.model_name:
        return JSONResponse({"error": f"the model here is {api.model_name}, not {name}"}, 404)
    serving = api.manager.serving
    if version is not None and (serving is None or version != serving.version):
        current = f"version {serving.version}" if serving else "no version"
        return JSONResponse({"error": f"{current} of {api.model_name} is in service, not version {version}"}, 404)
    return None


def _input_tensors(serving: ServingModel) -> list[dict[str, Any]]:
    return [
        {"name": column.name, "datatype": column.type.tensor_datatype, "shape": [-1, 1]}
        for column in serving.schema.columns.values()
    ]


def _output_tensors(serving: ServingModel) -> list[dict[str, Any]]:
    """Describe the outputs by those for the input example; without an example they are unknown."""
    parameters = {"kind": serving.output.kind, "classes": serving.output.classes}
    return [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": [-1, tensor.array.shape[1]],
            "parameters": parameters,
        }
        for tensor in (to_tensors(serving.example_output) if serving.example_output else [])
    ]
