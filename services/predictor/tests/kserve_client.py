"""Requests by KServe's own client. Runs in KServe's environment and prints the responses as JSON.

Arguments: the server's address, and a JSON file with ``v1`` (a body) and ``v2`` (datatype and data of each column).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import (  # type: ignore[import-not-found]  # only in KServe's environment
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

DTYPES = {"FP64": "float64", "INT64": "int64", "BYTES": "object"}


def request(columns: dict[str, tuple[str, list[Any]]], *, binary: bool) -> Any:
    """Build a request with the client's own classes."""
    inputs = []
    for name, (datatype, data) in columns.items():
        tensor = InferInput(name, [len(data), 1], datatype)
        tensor.set_data_from_numpy(np.array(data, DTYPES[datatype]).reshape(-1, 1), binary_data=binary)
        inputs.append(tensor)
    return InferRequest("m", inputs)


async def main(url: str, bodies: dict[str, Any]) -> dict[str, Any]:
    """Call each method of the client, and return the results by what was called."""
    results: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v1", retries=0)) as v1:
        results["v1 live"] = await v1.is_server_live(url)
        results["v1 ready"] = await v1.is_model_ready(url, "m")
        results["v1"] = (await v1.infer(url, bodies["v1"], model_name="m"))["predictions"]
        try:
            await v1.infer(url, {"instances": [{}]}, model_name="m")
        except Exception as error:  # noqa: BLE001  # raised by httpx, which is not imported here
            results["v1 refused"] = str(error)
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as v2:
        results["v2 live"] = await v2.is_server_live(url)
        results["v2 server ready"] = await v2.is_server_ready(url)
        results["v2 ready"] = await v2.is_model_ready(url, "m")
        for binary in (False, True):
            response = await v2.infer(url, request(bodies["v2"], binary=binary), model_name="m")
            (output,) = response.outputs
            results["v2 binary" if binary else "v2"] = output.as_numpy().tolist()
        try:
            await v2.infer(url, request({"alcohol": bodies["v2"]["alcohol"]}, binary=False), model_name="m")
        except Exception as error:  # noqa: BLE001
            results["v2 refused"] = str(error)
    return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))))
