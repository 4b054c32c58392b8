"""The Open Inference Protocol V2: tensors in JSON, or binary tensors after the JSON.

Each input is one column of the signature, or a single input is a matrix of all columns in their order.
https://github.com/kserve/open-inference-protocol
"""

import math
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from driftloop.events import ContextValue
from driftloop.registry.model_output import ModelOutput
from predictor.http.protocols.base import DecodedRequest, EncodedResponse, Headers, RequestError
from predictor.http.protocols.native import validation_error
from predictor.serving.annotations import Annotations, Keys, context_cells
from predictor.serving.batching import PredictionResult
from predictor.serving.conversion import convert_columns
from predictor.serving.schema import Schema, list_adapter
from predictor.serving.serving_model import ServingModel

JSON_LENGTH_HEADER = b"inference-header-content-length"
"""The header of the binary extension: how many bytes of the body are JSON."""
DTYPES = {
    "BOOL": "bool",
    **{f"INT{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BYTES": "object",
}
JSON_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    datatype: list_adapter(item_type | None, allow_inf_nan=True)
    for datatype in DTYPES
    for prefix, item_type in {"BOOL": bool, "INT": int, "UINT": int, "FP": float, "BYTES": str}.items()
    if datatype.startswith(prefix)
}
"""Validators of JSON values by datatype, because numpy alone would turn strings into numbers, numbers into booleans,
and 1.5 into 1."""
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}
MAX_DIMENSION = 2**31


class Parameters(BaseModel):
    """Parameters of a request, an input or an output; unknown ones are ignored, as the protocol demands."""

    binary_data_size: int | None = Field(None, ge=0)
    binary_data: bool = False
    binary_data_output: bool = False


class RequestParameters(Parameters):
    """Parameters of a request."""

    keys: Keys = Field([], description="a key of the client's own for each row, which outcomes may name")


class InputParameters(Parameters):
    """Parameters of an input."""

    context: bool = Field(
        False, description="whether the input is a column that the model does not take, and that is only recorded"
    )


class InputTensor(BaseModel):
    """An input of a request."""

    name: str
    shape: list[int] = Field(min_length=1, max_length=2)
    datatype: Literal[tuple(DTYPES)]  # type: ignore[valid-type]
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that the client asks for."""

    name: str
    parameters: Parameters = Parameters()


class InferenceRequest(BaseModel):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(None, description="is in the response again; the key of the row, if there is only one")
    parameters: RequestParameters = RequestParameters()
    inputs: Annotated[list[InputTensor], FailFast(), Field(min_length=1)]
    outputs: Annotated[list[RequestedOutput], FailFast()] = []


class OutputTensor(NamedTuple):
    """An output of a response."""

    name: str
    datatype: str
    array: npt.NDArray[Any]


class OpenInferenceV2Protocol:
    """The Open Inference Protocol V2."""

    name = "v2"
    blocking = True
    invalid_status = 400

    def decode(self, model: ServingModel, body: bytes, headers: Headers) -> DecodedRequest:
        """Decode the inputs to columns; a datatype is converted if the values stay the same."""
        try:
            json_length = int(headers.get(JSON_LENGTH_HEADER, len(body)))
            if not 0 <= json_length <= len(body):
                raise ValueError(
                    f"Inference-Header-Content-Length is {json_length}, and the body has {len(body)} bytes"
                )
            request = InferenceRequest.model_validate_json(body[:json_length])
            _require_outputs(request.outputs, model)
            inputs = _to_arrays(request.inputs, memoryview(body)[json_length:])
            context = {
                tensor.name: _context_cells(tensor.name, inputs.pop(tensor.name))
                for tensor in request.inputs
                if tensor.parameters.context
            }
            arrays = _by_column(inputs, model.schema)
            row_count = len(next(iter(arrays.values())))
            columns = convert_columns(model.schema, arrays, row_count)
            annotations = Annotations(request.parameters.keys or None, context or None)
        except ValidationError as error:
            raise RequestError(400, validation_error(error).message) from error
        except (ValueError, OverflowError, TypeError) as error:  # numpy's for values that a datatype cannot hold
            raise RequestError(400, f"{error}") from error
        return DecodedRequest(columns, row_count, annotations, request.id, request)

    def encode(self, model_name: str, result: PredictionResult, request: DecodedRequest) -> EncodedResponse:
        """Encode the requested outputs, or all if none is requested, in JSON or binary as requested."""
        body: InferenceRequest = request.state
        binary_by_name = {output.name: output.parameters.binary_data for output in body.outputs}
        outputs: list[dict[str, Any]] = []
        binary_parts: list[bytes] = []
        for tensor in to_tensors(result.output):
            if binary_by_name and tensor.name not in binary_by_name:
                continue
            output: dict[str, Any] = {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.array.shape),
            }
            if binary_by_name.get(tensor.name, body.parameters.binary_data_output):
                binary_parts.append(_encode_tensor(tensor.array))
                output["parameters"] = {"binary_data_size": len(binary_parts[-1])}
            else:
                output["data"] = tensor.array.ravel().tolist()
            outputs.append(output)
        response = to_json(
            {
                "model_name": model_name,
                "model_version": result.model.version,
                "id": body.id or result.id,
                "parameters": {"prediction_id": result.id},
                "outputs": outputs,
            }
        )
        if not binary_parts:
            return EncodedResponse(response)
        return EncodedResponse(
            b"".join([response, *binary_parts]),
            ((JSON_LENGTH_HEADER, b"%d" % len(response)),),
            content_type=b"application/octet-stream",
        )

    def encode_error(self, error: RequestError) -> bytes:
        """Encode an error as the protocol specifies."""
        return to_json({"error": error.message})


def _context_cells(name: str, array: npt.NDArray[Any]) -> list[ContextValue]:
    """Return a tensor of context as values of a column.

    Raises:
        ValueError: It has several values in a row, or one of an unsupported type.
    """
    if array.size != len(array):
        raise ValueError(f"context: {name!r:.100} has several values in a row")
    cells = array.ravel().tolist()
    try:
        return context_cells([None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells])
    except ValidationError as error:
        raise ValueError(f"context: {name!r:.100}: {error.errors()[0]['msg']}") from error


def to_tensors(output: ModelOutput) -> list[OutputTensor]:
    """Convert a model's output to two-dimensional tensors, which have the names that MLServer gives them."""
    tensors = []
    for number, array in enumerate(output.arrays, start=1):
        matrix = array.reshape(len(array), -1)
        tensors.append(OutputTensor(f"output-{number}", DATATYPES.get(str(matrix.dtype), "BYTES"), matrix))
    return tensors


def _require_outputs(requested: list[RequestedOutput], model: ServingModel) -> None:
    """Check that the model has the outputs that a client asks for.

    Raises:
        ValueError: One of them does not exist.
    """
    if not requested or model.example_output is None:
        return
    available = [tensor.name for tensor in to_tensors(model.example_output)]
    if unknown := [output.name for output in requested if output.name not in available]:
        raise ValueError(f"the model has no output {', '.join(unknown)}; its outputs are {', '.join(available)}")


def _to_arrays(inputs: list[InputTensor], binary: memoryview) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs by name, each in its shape; ``binary`` holds the data of binary inputs in their order."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for tensor in inputs:
        if tensor.name in arrays:
            raise ValueError(f"the input {tensor.name} occurs twice")
        if any(not 0 <= length < MAX_DIMENSION for length in tensor.shape):
            raise ValueError(f"the input {tensor.name} has the invalid shape {tensor.shape}")
        size = tensor.parameters.binary_data_size
        if size is not None:
            if size > len(binary):
                raise ValueError(f"the input {tensor.name} has {size} bytes, and the body has only {len(binary)} left")
            array, binary = _decode_tensor(binary[:size], tensor.datatype), binary[size:]
        elif tensor.data is not None:
            values = _json_values(tensor.name, tensor.datatype, tensor.data)
            array = np.array(values, dtype="object" if None in values else DTYPES[tensor.datatype])
        else:
            raise ValueError(f"the input {tensor.name} has neither data nor binary_data_size")
        if array.size != (count := math.prod(tensor.shape)):
            raise ValueError(f"the input {tensor.name} has {array.size} values, and its shape {tensor.shape} {count}")
        arrays[tensor.name] = array.reshape(tensor.shape)
    if binary:
        raise ValueError(f"{len(binary)} bytes follow the last input")
    return arrays


def _json_values(name: str, datatype: str, values: list[Any]) -> list[Any]:
    """Flatten rows, which JSON may contain as nested lists, and validate the values."""
    if values and all(isinstance(row, list) for row in values):
        values = [value for row in values for value in row]
    try:
        return JSON_ADAPTERS[datatype].validate_python(values)  # type: ignore[no-any-return]
    except ValidationError as error:
        (detail,) = error.errors()
        raise ValueError(f"the input {name}, value {detail['loc'][0]}: {detail['msg']}") from error


def _decode_tensor(data: memoryview, datatype: str) -> npt.NDArray[Any]:
    """Decode little-endian numbers, or strings that each follow their length in four bytes."""
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=np.dtype(DTYPES[datatype]).newbyteorder("<"))
    strings = []
    while data:
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length:
            raise ValueError("a string is longer than the rest of its tensor")
        strings.append(str(data[4 : 4 + length], "utf-8"))
        data = data[4 + length :]
    return np.array(strings, dtype=object)


def _encode_tensor(array: npt.NDArray[Any]) -> bytes:
    """Encode as little-endian numbers, or as strings that each follow their length in four bytes."""
    if array.dtype.kind in "UO":
        strings = [str(value).encode() for value in array.ravel().tolist()]
        return b"".join(len(string).to_bytes(4, "little") + string for string in strings)
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _by_column(arrays: dict[str, npt.NDArray[Any]], schema: Schema) -> dict[str, npt.NDArray[Any]]:
    """Return one value per row by column; a single input that is no column is a matrix of all of them."""
    if not arrays:
        raise ValueError("no input is a column of the model: all are context")
    if len(arrays) == 1:
        (name, array) = next(iter(arrays.items()))
        if name not in schema.columns:
            matrix = array.reshape(len(array), -1)
            if matrix.shape[1] != len(schema.columns):
                raise ValueError(
                    f"the input {name} is not a column of the model, and as a matrix it has {matrix.shape[1]} columns "
                    f"instead of {len(schema.columns)}"
                )
            return dict(zip(schema.columns, matrix.T, strict=True))
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or any(array.size != len(array) for array in arrays.values()):
        raise ValueError(f"each input must have one value per row and as many rows as the others; they have {lengths}")
    return {name: array.ravel() for name, array in arrays.items()}
