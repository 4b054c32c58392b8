"""The private functions of MLflow that the protocols use: a release that changes one must fail here, by its name."""

import inspect
from importlib import import_module

import pytest
from mlflow.models import infer_signature

from tests.support.predictor_app import FRAME

PRIVATE_FUNCTIONS = {
    "mlflow.models.utils._enforce_params_schema": ["params", "schema"],
    "mlflow.pyfunc.scoring_server._decode_json_input": ["json_input"],
    "mlflow.pyfunc.scoring_server._parse_json_data": ["data", "metadata", "input_schema"],
}


@pytest.mark.parametrize("path", PRIVATE_FUNCTIONS)
def test_mlflow_private_function_takes_the_expected_parameters(path: str) -> None:
    module, name = path.rsplit(".", 1)
    parameters = list(inspect.signature(getattr(import_module(module), name)).parameters)
    assert parameters[: len(PRIVATE_FUNCTIONS[path])] == PRIVATE_FUNCTIONS[path]


def test_mlflow_json_parser_returns_data_params_and_one_more() -> None:
    from mlflow.pyfunc.scoring_server import _decode_json_input, _parse_json_data  # noqa: PLC0415

    schema = infer_signature(FRAME).inputs
    request = _decode_json_input('{"dataframe_records": [{"x": 1.5, "n": 2}], "params": {"a": 1}}')
    data, params, _ = _parse_json_data(request, None, schema)
    assert data.to_dict("records") == [{"x": 1.5, "n": 2}]
    assert params == {"a": 1}
