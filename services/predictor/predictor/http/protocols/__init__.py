"""Protocols of prediction requests over HTTP. Each only translates; all are served by ``predictor.http.gateway``."""

from predictor.http.protocols.base import WireFormat
from predictor.http.protocols.kserve_v1 import KServeV1
from predictor.http.protocols.mlflow import Invocations
from predictor.http.protocols.native import Own
from predictor.http.protocols.open_inference_v2 import InferenceV2


def paths(model: str) -> dict[str, WireFormat]:
    """Where which protocol is spoken."""
    return {
        "/predict": Own(),
        "/invocations": Invocations(),
        f"/v1/models/{model}:predict": KServeV1(),
        f"/v2/models/{model}/infer": InferenceV2(),
    }
