"""The Open Inference Protocol, V2: columns as tensors, in JSON or with binary tensors behind it.

Each input is a column of the signature; or one input is all of them, a matrix with the columns in their order.
https://github.com/kserve/open-inference-protocol
"""

import math
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models.utils import _enforce_schema
from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from predictor.http.protocols.base import Asked, Headers, Problem, Reply
from predictor.http.protocols.native import invalid
from predictor.serving.batching import Answer
from predictor.serving.model_manager import Serving
from predictor.serving.model_output import Output
from predictor.serving.schema import Schema, list_of

LENGTH = b"inference-header-content-length"
"""The header of the binary extension: how many bytes of the body are JSON."""
DTYPES = {
    "BOOL": "bool",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BYTES": "object",
}
CELLS: dict[str, TypeAdapter[Any]] = {
    datatype: list_of(kind, allow_inf_nan=True)
    for datatype in DTYPES
    for start, kind in {"BOOL": bool, "INT": int, "UINT": int, "FP": float | None, "BYTES": str | None}.items()
    if datatype.startswith(start)
}
"""What JSON may hold: numpy would make a number of a text, true of any other, and 1 of 1.5."""
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
MOST_ROWS = 2**31


class Parameters(BaseModel):
    """Of a request, an input or an output; others are for servers that know them."""

    binary_data_size: int | None = Field(None, ge=0)
    binary_data: bool = False
    binary_data_output: bool = False


class Input(BaseModel):
    """A tensor of a request."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal[tuple(DTYPES)]  # type: ignore[valid-type]
    parameters: Parameters = Parameters()
    data: list[Any] | None = None


class Wanted(BaseModel):
    """An output that the client names."""

    name: str
    parameters: Parameters = Parameters()


class Infer(BaseModel):
    """A request."""

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: Annotated[list[Input], FailFast(), Field(min_length=1)]
    outputs: Annotated[list[Wanted], FailFast()] = []


class Tensor(NamedTuple):
    """A tensor of an answer."""

    name: str
    datatype: str
    array: npt.NDArray[Any]


class InferenceV2:
    """The Open Inference Protocol."""

    name = "v2"
    slow = True
    wrong = 400

    def read(self, serving: Serving, body: bytes, headers: Headers) -> Asked:
        """The inputs as columns, of the types that MLflow's schema enforcement permits."""
        try:
            split = int(headers.get(LENGTH, len(body)))
            if not 0 <= split <= len(body):
                raise ValueError(f"Inference-Header-Content-Length is {split}, and the body has {len(body)} bytes")
            request = Infer.model_validate_json(body[:split])
            arrays = _arrays(request.inputs, memoryview(body)[split:])
            frame = _frame(arrays, serving.schema)
            columns = serving.schema.given(_enforce_schema(frame, serving.stored.signature.inputs))
        except ValidationError as error:
            raise Problem(400, invalid(error).message) from error
        except Exception as error:  # of MLflow's enforcement, as many kinds as there are mistakes
            raise Problem(400, f"{error}") from error
        return Asked(columns, len(frame), request)

    def write(self, model: str, answer: Answer, asked: Asked) -> Reply:
        """The outputs, those that are wanted as binary behind the JSON."""
        request: Infer = asked.context
        wanted = {output.name: output.parameters.binary_data for output in request.outputs}
        outputs: list[dict[str, Any]] = []
        binary: list[bytes] = []
        given = tensors(answer.output)
        for name, datatype, array in [tensor for tensor in given if tensor.name in wanted] or given:
            output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
            if wanted.get(name, request.parameters.binary_data_output):
                binary.append(_binary(array))
                output["parameters"] = {"binary_data_size": len(binary[-1])}
            else:
                output["data"] = array.ravel().tolist()
            outputs.append(output)
        body = to_json(
            {
                "model_name": model,
                "model_version": answer.serving.version,
                "id": request.id or answer.id,
                "outputs": outputs,
            }
        )
        if not binary:
            return Reply(body)
        return Reply(
            b"".join([body, *binary]), ((LENGTH, b"%d" % len(body)),), content_type=b"application/octet-stream"
        )

    def refuse(self, problem: Problem) -> bytes:
        """As the protocol has it."""
        return to_json({"error": problem.message})


def tensors(output: Output) -> list[Tensor]:
    """What an estimator answered as tensors of two dimensions, named as MLServer names them."""
    named = []
    for number, array in enumerate(output.arrays, start=1):
        matrix = array.reshape(len(array), -1)
        named.append(Tensor(f"output-{number}", DATATYPES.get(str(matrix.dtype), "BYTES"), matrix))
    return named


def _arrays(inputs: list[Input], binary: memoryview) -> dict[str, npt.NDArray[Any]]:
    """The inputs by name, each with its shape."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for one in inputs:
        if one.name in arrays:
            raise ValueError(f"the input {one.name} is there twice")
        if any(not 0 <= length < MOST_ROWS for length in one.shape):
            raise ValueError(f"the input {one.name} has the shape {one.shape}")
        count = math.prod(one.shape)
        size = one.parameters.binary_data_size
        if size is not None:
            if size > len(binary):
                raise ValueError(f"the input {one.name} has {size} bytes, and {len(binary)} are left of the body")
            array, binary = _from_binary(binary[:size], one.datatype), binary[size:]
        elif one.data is not None:
            array = np.array(_cells(one), dtype=DTYPES[one.datatype])
        else:
            raise ValueError(f"the input {one.name} has neither data nor binary_data_size")
        if array.size != count:
            raise ValueError(f"the input {one.name} has {array.size} values, and its shape {one.shape} {count}")
        arrays[one.name] = array.reshape(one.shape)
    if binary:
        raise ValueError(f"{len(binary)} bytes are left behind the last input")
    return arrays


def _cells(one: Input) -> list[Any]:
    """The values in JSON, whose rows may be lists."""
    cells = one.data or []
    if cells and all(isinstance(row, list) for row in cells):
        cells = [cell for row in cells for cell in row]
    try:
        return CELLS[one.datatype].validate_python(cells)  # type: ignore[no-any-return]
    except ValidationError as error:
        (first,) = error.errors()
        raise ValueError(f"the input {one.name}, value {first['loc'][0]}: {first['msg']}") from error


def _from_binary(data: memoryview, datatype: str) -> npt.NDArray[Any]:
    """Little-endian numbers, or texts that each follow their length of four bytes."""
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=np.dtype(DTYPES[datatype]).newbyteorder("<"))
    texts = []
    while data:
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length:
            raise ValueError("a text is longer than what is left of its tensor")
        texts.append(str(data[4 : 4 + length], "utf-8"))
        data = data[4 + length :]
    return np.array(texts, dtype=object)


def _binary(array: npt.NDArray[Any]) -> bytes:
    if array.dtype.kind in "UO":
        texts = [str(cell).encode() for cell in array.ravel().tolist()]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _frame(arrays: dict[str, npt.NDArray[Any]], schema: Schema) -> pd.DataFrame | npt.NDArray[Any]:
    """The inputs as what the signature describes: a matrix, or columns."""
    if len(arrays) == 1:
        (name, array) = next(iter(arrays.items()))
        if name not in schema.columns:
            matrix = array.reshape(len(array), -1)
            if matrix.shape[1] != len(schema.columns):
                raise ValueError(
                    f"the input {name} is no column, and has {matrix.shape[1]} instead of {len(schema.columns)}"
                )
            return matrix if schema.tensor else pd.DataFrame(matrix, columns=list(schema.columns))
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(array.size != len(array) for array in arrays.values()):
        raise ValueError(f"the inputs must have one value a row and as many rows each, and have {lengths}")
    frame = pd.DataFrame({name: array.ravel() for name, array in arrays.items()})
    if not schema.tensor:
        return frame
    return np.column_stack([frame[name].to_numpy() for name in schema.columns])
