"""Protocols of prediction requests over HTTP. Each only translates; ``predictor.http.gateway`` serves all of them."""

from predictor.http.protocols.base import InferenceProtocol
from predictor.http.protocols.kserve_v1 import KServeV1Protocol
from predictor.http.protocols.mlflow import MlflowProtocol
from predictor.http.protocols.native import NativeProtocol
from predictor.http.protocols.open_inference_v2 import OpenInferenceV2Protocol


def protocols_by_path(model_name: str) -> dict[str, InferenceProtocol]:
    """Return the protocol of each path that takes prediction requests."""
    return {
        "/predict": NativeProtocol(),
        "/invocations": MlflowProtocol(),
        f"/v1/models/{model_name}:predict": KServeV1Protocol(),
        f"/v2/models/{model_name}/infer": OpenInferenceV2Protocol(),
    }
