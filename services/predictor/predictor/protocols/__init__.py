"""Ways to ask for predictions over HTTP. Each translates, nothing else; all share one way in, ``predictor.front``."""

from predictor.protocols.inference_v2 import InferenceV2
from predictor.protocols.invocations import Invocations
from predictor.protocols.kserve_v1 import KServeV1
from predictor.protocols.own import Own
from predictor.protocols.protocol import WireFormat


def paths(model: str) -> dict[str, WireFormat]:
    """Where which protocol is spoken."""
    return {
        "/predict": Own(),
        "/invocations": Invocations(),
        f"/v1/models/{model}:predict": KServeV1(),
        f"/v2/models/{model}/infer": InferenceV2(),
    }
