"""KServe's own client, asking as its users do; runs in KServe's environment and prints what it was answered as JSON.

Arguments: the server's address, and a JSON file with ``v1`` (a body) and ``v2`` (datatype and data of each column).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import (  # type: ignore[import-not-found]  # not in driftloop's environment
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

DTYPES = {"FP64": "float64", "INT64": "int64", "BYTES": "object"}


def request(columns: dict[str, tuple[str, list[Any]]], *, binary: bool) -> Any:
    """A request of the client's own making."""
    inputs = []
    for name, (datatype, data) in columns.items():
        one = InferInput(name, [len(data), 1], datatype)
        one.set_data_from_numpy(np.array(data, DTYPES[datatype]).reshape(-1, 1), binary_data=binary)
        inputs.append(one)
    return InferRequest("m", inputs)


async def main(url: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Everything that the client can ask."""
    answers: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1", retries=0)) as v1:
        answers["v1 live"] = await v1.is_server_live(url)
        answers["v1 ready"] = await v1.is_model_ready(url, "m")
        answers["v1"] = (await v1.infer(url, asked["v1"], model_name="m"))["predictions"]
        try:
            await v1.infer(url, {"instances": [{}]}, model_name="m")
        except Exception as error:  # noqa: BLE001  # httpx's, which is not for us to name
            answers["v1 refused"] = str(error)
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as v2:
        answers["v2 live"] = await v2.is_server_live(url)
        answers["v2 server ready"] = await v2.is_server_ready(url)
        answers["v2 ready"] = await v2.is_model_ready(url, "m")
        for binary in (False, True):
            response = await v2.infer(url, request(asked["v2"], binary=binary), model_name="m")
            (output,) = response.outputs
            answers["v2 binary" if binary else "v2"] = output.as_numpy().tolist()
        try:
            await v2.infer(url, request({"alcohol": asked["v2"]["alcohol"]}, binary=False), model_name="m")
        except Exception as error:  # noqa: BLE001
            answers["v2 refused"] = str(error)
    return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))))
