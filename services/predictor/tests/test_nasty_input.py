"""Invalid and hostile requests get a clear error in the form of their protocol, and affect no other request."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from string import Template
from typing import Any
from urllib.parse import urlsplit

import httpx
import hypothesis
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from predictor.http.protocols import protocols_by_path
from predictor.http.protocols.base import RequestError
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from tests.support.predictor_app import StaticModelManager, outbox_events, serving_model

pytestmark = pytest.mark.integration

MEGABYTE = 1_000_000
MAX_ROWS = 100
V2 = "/v2/models/m/infer"
V1 = "/v1/models/m:predict"
PATHS = ("/predict", V1, "/invocations", V2)
INVALID_KEY = {"/predict": 422, V1: 400, "/invocations": 400, V2: 400}
# A request with one row in each protocol, and in each of MLflow's formats.
ROWS = {
    "own": ("/predict", '{"instances": [{"x": $x, "n": $n, "word": $word}]}'),
    "V1 by name": (V1, '{"instances": [{"x": $x, "n": $n, "word": $word}]}'),
    "V1 by position": (V1, '{"instances": [[$x, $n, $word]]}'),
    "split": ("/invocations", '{"dataframe_split": {"columns": ["x", "n", "word"], "data": [[$x, $n, $word]]}}'),
    "records": ("/invocations", '{"dataframe_records": [{"x": $x, "n": $n, "word": $word}]}'),
    "instances": ("/invocations", '{"instances": [{"x": $x, "n": $n, "word": $word}]}'),
    "inputs": ("/invocations", '{"inputs": {"x": [$x], "n": [$n], "word": [$word]}}'),
    "V2": (
        V2,
        '{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [$x]},'
        ' {"name": "n", "shape": [1, 1], "datatype": "INT64", "data": [$n]},'
        ' {"name": "word", "shape": [1, 1], "datatype": "BYTES", "data": [$word]}]}',
    ),
}
JSON = {"Content-Type": "application/json"}


class SumEstimator:
    """An estimator that adds two columns, and fails for values of other types than its signature's."""

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "object"]
        assert all(isinstance(word, str) for word in frame["word"])
        return np.asarray(np.nan_to_num(frame["x"].to_numpy()) + frame["n"].to_numpy())


@pytest.fixture(scope="module")
def manager() -> StaticModelManager:
    manager = StaticModelManager()
    frame = pd.DataFrame({"x": [0.5], "n": [1], "word": ["a"]})
    manager.serving = serving_model(SumEstimator(), frame, "predict", max_rows=MAX_ROWS)
    return manager


@pytest.fixture(scope="module")
def shared_outbox(tmp_path_factory: pytest.TempPathFactory) -> Outbox:
    return Outbox(tmp_path_factory.mktemp("outbox"), OutboxSettings())


@pytest.fixture(scope="module")
def server(serve: Any, manager: StaticModelManager, shared_outbox: Outbox) -> Iterator[str]:
    """One server for all tests: it must survive each of them."""
    with serve(manager, shared_outbox) as url:
        yield url


@pytest.fixture
def outbox(shared_outbox: Outbox) -> Outbox:
    """The shared outbox, emptied."""
    shared_outbox.delete_through(2**62)
    return shared_outbox


@pytest.fixture
def server_of(serve: Any, manager: StaticModelManager, outbox: Outbox) -> Any:
    return partial(serve, manager, outbox)


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


def row(form: str, x: str = "1.5", n: str = "2", word: str = '"a"') -> tuple[str, bytes]:
    path, text = ROWS[form]
    return path, Template(text).substitute(x=x, n=n, word=word).encode()


def assert_serves(client: httpx.Client) -> None:
    """The server serves requests of each protocol."""
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == 200, (form, answer.text)
        content = answer.json()
        (score,) = content["outputs"][0]["data"] if path == V2 else content["predictions"]
        assert score == 3.5


def assert_rejected(path: str, status: int, text: str, *, expected: int | None = None) -> None:
    """The response is a 4xx with a message in the form of the protocol."""
    assert 400 <= status < 500 if expected is None else status == expected, (path, status, text[:1_000])
    content = json.loads(text)
    if path == "/predict":
        message = content["detail"] if isinstance(content["detail"], str) else content["detail"][0]["msg"]
        assert isinstance(content["detail"], str) or content["detail"][0]["loc"][0] in ("body", "header")
    elif path == "/invocations":
        assert content.keys() == {"error_code", "message"}
        message = content["message"]
    else:
        assert content.keys() == {"error"}
        message = content["error"]
    assert isinstance(message, str)
    assert message
    assert "Traceback" not in message


INVALID_BODIES = {
    "nothing": b"",
    "no JSON": b"hello",
    "null": b"null",
    "a number": b"5",
    "a text": b'"instances"',
    "a list": b"[]",
    "a list of lists": b"[[1, 2, 3]]",
    "an empty object": b"{}",
    "nulls": b'{"instances": null, "inputs": null, "dataframe_split": null}',
    "empty lists": b'{"instances": [], "inputs": []}',
    "numbers for rows": b'{"instances": 5, "inputs": 5}',
    "unknown rows": b'{"instances": [{"y": 1}], "inputs": [{"y": 1}]}',
    "for a language model": b'{"input": "hello", "messages": [{"role": "user", "content": "hello"}], "prompt": 1}',
    "half": b'{"instances": [{"x": 1.5, ',
    "more after it": b'{"instances": []}{"instances": []}',
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "nested rows": b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested inputs": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of many digits": b'{"instances": [[' + b"9" * 100_000 + b", 1, 1]]}",
    "zeros": b"\0" * 1_000,
    "no UTF-8": b'{"instances": [{"x": 1.5, "n": 2, "word": "\xff\xfe"}]}',
    "UTF-16": '{"instances": [{"x": 1.5, "n": 2, "word": "a"}]}'.encode("utf-16"),
    "latin-1": '{"dataframe_records": [{"x": 1.5, "n": 2, "word": "é"}]}'.encode("latin-1"),
    "many empty rows": b'{"instances": [' + b"{}," * 1_000_000 + b"{}]}",
    "many fields": b'{"instances": [{' + b",".join(b'"f%d":1' % i for i in range(300_000)) + b"}]}",
    "many inputs": b'{"inputs": [' + b"{}," * 1_000_000 + b"{}]}",
}


@pytest.mark.parametrize("name", INVALID_BODIES)
def test_protocols_reject_invalid_body_with_4xx(client: httpx.Client, outbox: Outbox, name: str) -> None:
    for path in PATHS:
        answer = client.post(path, content=INVALID_BODIES[name], headers=JSON)
        assert_rejected(path, answer.status_code, answer.text)
        assert len(answer.content) < MEGABYTE
    assert not outbox_events(outbox)
    assert_serves(client)


@pytest.mark.parametrize("path", PATHS)
def test_protocols_truncate_error_messages_and_replace_surrogates(path: str) -> None:
    content = protocols_by_path("m")[path].encode_error(
        RequestError(400, "the column \ud800" + "a" * MEGABYTE + " is wrong")
    )
    assert_rejected(path, 400, content.decode())
    assert len(content) < 3_000
    assert b"the column ?" in content
    assert b"is wrong" in content


VALUES = {
    "x": [
        *('"1.5"', '"nan"', "true", "null", "[1.5]", "{}", "2", "9007199254740993", "1e-400", "-0.0", "NaN"),
        *("Infinity", "-Infinity", "1e400", "1" + "0" * 400),
    ],
    "n": ["1.5", "2.0", "NaN", '"2"', "true", "null", "[2]", "{}", str(2**63), str(-(2**63) - 1), "1" + "0" * 400],
    "word": [
        *('"\\ud800"', '"a\\udc00"', '"\\ud83d\\ude00"', '"\\u0000a"', '"\\u001f\\u007f\\u0085"', '"\\u202e"', '""'),
        *('"' + "a" * 100_000 + '"', "5", "1.5", "true", "null", '["a"]', '{"a": 1}', "NaN"),
    ],
}
ACCEPTED_NOWHERE = {
    *(("x", value) for value in ("{}", *VALUES["x"][-4:])),
    *(("n", value) for value in ("NaN", "null", "{}", str(-(2**63) - 1), "1" + "0" * 400)),
    *(("word", value) for value in ('"\\ud800"', '"a\\udc00"')),
}
ACCEPTED_EVERYWHERE = {("x", "2"), ("x", "1e-400"), ("x", "-0.0"), *(("word", value) for value in VALUES["word"][2:8])}


@pytest.mark.parametrize("form", ROWS)
def test_protocols_reject_odd_value_or_store_what_the_model_got(
    client: httpx.Client, outbox: Outbox, form: str
) -> None:
    stored_count = 0
    for column, value in [(column, value) for column, values in VALUES.items() for value in values]:
        path, body = row(form, **{column: value})
        answer = client.post(path, content=body, headers=JSON)
        accepted = answer.status_code == 200
        assert accepted or (column, value) not in ACCEPTED_EVERYWHERE, (column, value, answer.text)
        assert not accepted or (column, value) not in ACCEPTED_NOWHERE, (column, value)
        stored_count += accepted
        all_events = outbox_events(outbox)
        assert len(all_events) == stored_count, (column, value)
        if accepted:
            event: Any = all_events[-1]
            x, n, word = (cells[0] for cells in event.features.values())
            assert event.predictions == [float((x or 0) + n)], (column, value)
            assert isinstance(word, str)
        else:
            assert_rejected(path, answer.status_code, answer.text)
            assert len(answer.content) < 10_000
    assert_serves(client)


KEYS = [
    *("null", "5", '"a"', "{}", "[]", "[5]", "[1.5]", "[true]", "[[]]", '[""]', '["a", "b"]', "[null, null]"),
    *('["\\ud800"]', '["a\\udc00"]', '["' + "a" * 257 + '"]', '["' + "a" * 100_000 + '"]', "[NaN]"),
    "[" + "1," * 300_000 + "1]",
]
ODD_KEYS = ['["\\u0000a"]', '["\\ud83d\\ude00"]', '["\\u202e"]', '[" "]', '["' + "ü" * 256 + '"]', "[null]"]
CONTEXTS = [
    *("null", "5", '"a"', "{}", "[]", "[5]", "[null]", "[[]]", "[{}, {}]", '[{"": 1}]', '[{"a": []}]', '[{"a": {}}]'),
    *('[{"a": NaN}]', '[{"a": Infinity}]', '[{"a": 1e400}]', '[{"a": "\\ud800"}]', '[{"\\ud800": 1}]'),
    '[{"' + "a" * 257 + '": 1}]',
    "[{" + ",".join(f'"c{number}": 1' for number in range(101)) + "}]",
    "[{" + ",".join(f'"c{number}": 1' for number in range(100_000)) + "}]",
    "[" * 100_000,
    "[" + "{}," * 300_000 + "{}]",
]
ODD_CONTEXTS = [
    *('[{"a": "\\u0000"}]', '[{"x": "text"}]', '[{"__proto__": null}]', '[{"a": -0.0}]', '[{"a": 1e-400}]', "[{}]"),
    *('[{"a": ' + str(2**63) + "}]", '[{"a": 1' + "0" * 400 + "}]", '[{"a.b": true, "größe": "\\ud83d\\ude00"}]'),
]
ANNOTATED = ("own", "V1 by name", "V1 by position", "split", "records", "instances", "inputs")


def beside(form: str, field: str, value: str) -> tuple[str, bytes]:
    """A request of one row with another field."""
    path, body = row(form)
    return path, body[:-1] + f', "{field}": {value}}}'.encode()


@pytest.mark.parametrize("form", ANNOTATED)
def test_protocols_reject_invalid_keys_and_context_with_4xx(client: httpx.Client, outbox: Outbox, form: str) -> None:
    for field, value in [*(("keys", value) for value in KEYS), *(("context", value) for value in CONTEXTS)]:
        if form.startswith("V1") and value == "[" * 100_000:
            continue
        path, body = beside(form, field, value)
        answer = client.post(path, content=body, headers=JSON)
        assert_rejected(path, answer.status_code, answer.text)
        assert len(answer.content) < MEGABYTE
        assert not outbox_events(outbox), (field, value[:100])
    assert_serves(client)


@pytest.mark.parametrize("form", ANNOTATED)
def test_protocols_store_odd_keys_and_context_as_they_are(client: httpx.Client, outbox: Outbox, form: str) -> None:
    for field, value in [*(("keys", value) for value in ODD_KEYS), *(("context", value) for value in ODD_CONTEXTS)]:
        path, body = beside(form, field, value)
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == 200, (field, value, answer.text)
        event: Any = outbox_events(outbox)[-1]
        sent = json.loads(value)
        columns = {name: [cell] for name, cell in sent[0].items()} if field == "context" else {}
        assert (event.keys if field == "keys" else event.context or {}) == (sent if field == "keys" else columns)
        assert event.predictions == [3.5]


def test_v2_rejects_invalid_keys_with_400(client: httpx.Client, outbox: Outbox) -> None:
    for value in set(KEYS) - {"[]"}:
        body = row("V2")[1][:-1] + f', "parameters": {{"keys": {value}}}}}'.encode()
        assert_rejected(V2, *status_and_text(client.post(V2, content=body, headers=JSON)), expected=400)
    for name in ('"' + "a" * 257 + '"', '"\\ud800"', "5", "[]", "{}"):
        body = row("V2")[1][:-1] + f', "id": {name}}}'.encode()
        assert_rejected(V2, *status_and_text(client.post(V2, content=body, headers=JSON)), expected=400)
    assert not outbox_events(outbox)
    assert_serves(client)


def status_and_text(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


# Bodies whose frame takes gigabytes once all rows are padded to the widest, or all strings to the longest.
MANY = b",".join([b"1"] * 40_000)
PADDED = {
    "a wide row among short ones": b'{"dataframe_records": [[' + MANY + b"]" + b",[1]" * 40_000 + b"]}",
    "a wide row of a split": b'{"dataframe_split": {"data": [[' + MANY + b"]" + b",[1]" * 40_000 + b"]}}",
    "an index and columns": b'{"dataframe_split": {"index": [' + MANY + b'], "columns": [' + MANY + b'], "data": []}}',
    "names of their own": b'{"dataframe_records": [' + b",".join(b'{"%d": 1}' % i for i in range(40_000)) + b"]}",
    "a scalar for each row": b'{"inputs": {"x": ['
    + MANY
    + b"]"
    + b"".join(b',"%d":1' % i for i in range(9_999))
    + b"}}",
    "a long text": b'{"inputs": {"word": ["' + b"a" * MEGABYTE + b'"' + b',"a"' * 4_000 + b"]}}",
    "a long text in a row": b'{"instances": [{"word": "' + b"a" * MEGABYTE + b'"}' + b',{"word": "a"}' * 4_000 + b"]}",
    "columns of a table": MANY + b"\n1" * 40_000,
}


@pytest.mark.parametrize("name", PADDED)
def test_invocations_rejects_small_body_that_is_padded_to_gigabytes(
    client: httpx.Client, outbox: Outbox, name: str
) -> None:
    kind = "text/csv" if name.endswith("table") else "application/json"
    answer = client.post("/invocations", content=PADDED[name], headers={"Content-Type": kind})
    assert_rejected("/invocations", answer.status_code, answer.text, expected=413)
    assert not outbox_events(outbox)
    assert_serves(client)


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ({"Content-Type": "application/json; charset=latin-1"}, {"/invocations": 415}),
        ({"Content-Type": "application/json; charset=UTF-8"}, {}),
        ({"Content-Type": "application/xml"}, {"/invocations": 415}),
        ({"Content-Type": "\xff"}, {"/invocations": 415}),
        ({"Content-Type": ""}, {"/invocations": 415}),
        ({**JSON, "Content-Encoding": "gzip"}, dict.fromkeys(PATHS, 415)),
        ({**JSON, "Content-Encoding": "identity"}, {}),
        ({**JSON, "Driftloop-Time": "yesterday"}, dict.fromkeys(PATHS, 422)),
        ({**JSON, "Driftloop-Time": "\xff" * 1_000}, dict.fromkeys(PATHS, 422)),
        ({**JSON, "Driftloop-Time": "9" * 400}, dict.fromkeys(PATHS, 422)),
        ({**JSON, "Driftloop-Key": ""}, INVALID_KEY),
        ({**JSON, "Driftloop-Key": "\xff"}, INVALID_KEY),
        ({**JSON, "Driftloop-Key": "a" * 257}, INVALID_KEY),
        ({**JSON, "Driftloop-Key": 'a b, c; d="e"'}, {}),
        ({**JSON, "Inference-Header-Content-Length": "-1"}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "10"}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "1" + "0" * 30}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "9" * 5_000}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "ten"}, {V2: 400}),
    ],
)
def test_protocols_reject_odd_header_where_it_matters(
    client: httpx.Client, headers: dict[str, str], statuses: dict[str, int]
) -> None:
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    for form in ("own", "V1 by name", "split", "V2"):
        path, body = row(form)
        answer = client.post(path, content=body, headers=sent)
        if path in statuses:
            assert_rejected(path, answer.status_code, answer.text, expected=statuses[path])
        else:
            assert answer.status_code == 200, (path, answer.text)
    assert_serves(client)


def test_protocols_reject_declared_compression_with_415(client: httpx.Client) -> None:
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=gzip.compress(body), headers={**JSON, "Content-Encoding": "gzip"})
        assert_rejected(path, answer.status_code, answer.text, expected=415)


def test_protocols_reject_undeclared_compression_with_4xx(client: httpx.Client) -> None:
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=gzip.compress(body), headers=JSON)
        assert_rejected(path, answer.status_code, answer.text)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_protocols_reject_other_methods_with_405(server: str, method: str) -> None:
    for path in (*PATHS, "/v2/models/m/versions/7/infer"):
        answer = httpx.request(method, server + path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        if method != "HEAD":
            assert_rejected("/v2" if path.startswith("/v2") else path, answer.status_code, answer.text)


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/predict/", "/predict/1", "//predict", "/v2/models/m/versions//infer",
     "/v2/models//infer", "/v2/models/%00/infer", "/v2/models/%ff/infer",
     "/v1/models/m:explain", "/v1/models/another:predict", "/v2/models/another/infer",
     "/v2/models/m/versions/8/infer", "/..%2f..%2fetc/passwd", "/" + "a" * 10_000],
)  # fmt: skip
def test_unknown_path_is_4xx(client: httpx.Client, path: str) -> None:
    answer = client.post(path, content=row("V2")[1], headers=JSON)
    assert answer.status_code in (404, 405)
    assert answer.json()
    assert_serves(client)


def tensor(**changed: Any) -> bytes:
    inputs: list[dict[str, Any]] = [
        {"name": "x", "shape": [2], "datatype": "FP64", "data": [1.5, 2.5]},
        {"name": "n", "shape": [2], "datatype": "INT64", "data": [2, 3]},
        {"name": "word", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
    ]
    return json.dumps({"inputs": [inputs[0] | changed, *inputs[1:]]}).encode()


CONTRADICTIONS: dict[str, list[Any]] = {
    "shape": [
        *([], [0], [1], [3], [-2], [-1, -2], [2, 2], [0, 0], [2, 0], [1, 1, 2]),
        *([2**31, 2**31], [2**62, 4], [10**400], [2.5], [None], None, 2),
    ],
    "datatype": ["FP8", "", None, 5, "BOOL", "BYTES", "UINT8"],
    "data": [[], [[1.5], [2.5, 3.5]], [[[1.5]], [[2.5]]], "12", None, {"0": 1.5}, [[], []]],
    "name": ["y", "", "n", None, 5],
    "parameters": [{"binary_data_size": 16}, {"binary_data_size": -1}, {"binary_data_size": 2**80}, 5],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in CONTRADICTIONS.items() for value in values]
)
def test_v2_rejects_inconsistent_tensor(client: httpx.Client, outbox: Outbox, field: str, value: Any) -> None:
    answer = client.post(V2, content=tensor(**{field: value}), headers=JSON)
    assert_rejected(V2, answer.status_code, answer.text, expected=400)
    assert not outbox_events(outbox)
    assert client.post(V2, content=tensor(), headers=JSON).json()["outputs"][0]["data"] == [3.5, 5.5]


BINARY = {
    "x": ("FP64", np.array([1.5]).tobytes()),
    "n": ("INT64", np.array([2]).tobytes()),
    "word": ("BYTES", b"\1\0\0\0a"),
}


def binary(*, sizes: dict[str, int], behind: bytes = b"", header: int = 0, **tensors: bytes) -> tuple[bytes, bytes]:
    """Length of the JSON, and the body."""
    bodies = {name: tensors.get(name, data) for name, (_, data) in BINARY.items()}
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": BINARY[name][0],
            "parameters": {"binary_data_size": sizes.get(name, len(data))},
        }
        for name, data in bodies.items()
    ]
    text = json.dumps({"inputs": inputs}).encode()
    return b"%d" % (len(text) + header), text + b"".join(bodies.values()) + behind


@pytest.mark.parametrize(
    ("lies", "status"),
    [
        ({"sizes": {}}, 200),
        ({"sizes": {"x": 0}}, 400),
        ({"sizes": {"x": 7}}, 400),
        ({"sizes": {"x": 16}}, 400),
        ({"sizes": {"word": 4}}, 400),
        ({"sizes": {"word": 2}}, 400),
        ({"sizes": {"word": 10**9}}, 400),
        ({"sizes": {}, "behind": b"more"}, 400),
        ({"sizes": {}, "header": 1}, 400),
        ({"sizes": {}, "header": -1}, 400),
        ({"sizes": {}, "word": b"\xff\xff\xff\xffa"}, 400),
        ({"sizes": {}, "word": b"\1\0\0\0\xff"}, 400),
        ({"sizes": {}, "word": b"\3\0\0\0\xed\xa0\x80"}, 400),
        ({"sizes": {}, "word": b"\0\0\0\0" * 2}, 400),
        ({"sizes": {}, "x": np.array([np.inf]).tobytes()}, 400),
        ({"sizes": {}, "x": np.array([np.nan]).tobytes()}, 400),  # the column is required
    ],
)
def test_v2_rejects_binary_tensor_with_wrong_sizes(
    client: httpx.Client, outbox: Outbox, lies: dict[str, Any], status: int
) -> None:
    length, body = binary(**lies)
    answer = client.post(V2, content=body, headers={"Inference-Header-Content-Length": length.decode()})
    assert len(outbox_events(outbox)) == (status == 200)
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        assert_rejected(V2, answer.status_code, answer.text, expected=400)
    assert_serves(client)


def test_protocols_reject_too_many_rows(client: httpx.Client, outbox: Outbox) -> None:
    rows = MAX_ROWS + 1
    record = {"x": 1.5, "n": 2, "word": "a"}
    many: list[tuple[str, Any]] = [
        ("/predict", {"instances": [record] * rows}),
        (V1, {"instances": [list(record.values())] * rows}),
        ("/invocations", {"dataframe_records": [record] * rows}),
        ("/invocations", {"inputs": {name: [value] * rows for name, value in record.items()}}),
        (
            V2,
            {
                "inputs": [
                    {"name": name, "shape": [rows], "datatype": datatype, "data": [record[name]] * rows}
                    for name, (datatype, _) in BINARY.items()
                ]
            },
        ),
    ]
    for path, body in many:
        answer = client.post(path, json=body)
        assert_rejected(path, answer.status_code, answer.text, expected=422)
        assert str(MAX_ROWS) in answer.text
    assert not outbox_events(outbox)
    assert_serves(client)


class RawConnection:
    """A connection on which any bytes can be sent."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)

    def send(self, path: str, headers: dict[str, Any], *parts: bytes) -> None:
        lines = [f"POST {path} HTTP/1.1", "Host: here", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + b"".join(parts))

    def read_response(self) -> tuple[int, str]:
        """Return status and body of the response, after which the server closes the connection."""
        answer = b""
        while part := self.socket.recv(65_536):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def reset(self) -> None:
        """Close the connection at once, without reading what the server has sent."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


@pytest.mark.parametrize("path", [*PATHS, "/outcomes"])
def test_body_over_the_limit_is_413_with_and_without_content_length(server_of: Any, path: str) -> None:
    with server_of(max_body_bytes=1_000) as url:
        for headers, sent in (
            ({"Content-Length": 1_001}, b""),  # it is not waited for
            ({"Content-Length": 10**15}, b""),
            ({"Transfer-Encoding": "chunked"}, b"1f5\r\n" + b" " * 501 + b"\r\n1f5\r\n" + b" " * 501 + b"\r\n"),
        ):
            connection = RawConnection(url)
            connection.send(path, headers, sent)
            status, text = connection.read_response()
            assert_rejected("/predict" if path == "/outcomes" else path, status, text, expected=413)
            assert "DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES" in text
        with httpx.Client(base_url=url) as client:
            assert_serves(client)


@pytest.mark.parametrize("path", [*PATHS, "/outcomes"])
def test_slow_client_gets_408_and_does_not_block_others(server_of: Any, path: str) -> None:
    with server_of(body_timeout_seconds=0.5) as url, httpx.Client(base_url=url) as client:
        slow = RawConnection(url)
        slow.send(path, {"Content-Length": 1_000})
        stopped = threading.Event()

        def trickle() -> None:
            while not stopped.wait(0.02):
                slow.socket.sendall(b" ")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            assert_serves(client)  # meanwhile
            status, text = slow.read_response()
        finally:
            stopped.set()
            trickling.join()
        assert_rejected("/predict" if path == "/outcomes" else path, status, text, expected=408)
        assert "DRIFTLOOP_PREDICTOR__BODY_TIMEOUT_SECONDS" in text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"Content-Length": 100}, b'{"instances": '),
        ({"Transfer-Encoding": "chunked"}, b"e\r\n" + b'{"instances": \r\n'),
        ({"Transfer-Encoding": "chunked"}, b"ffff\r\n" + b'{"inst'),
        ({"Transfer-Encoding": "chunked"}, b"no number\r\n"),
    ],
    ids=["a length", "a chunk", "half a chunk", "no chunk"],
)
def test_incomplete_upload_stores_no_event_and_server_continues(
    server: str, outbox: Outbox, path: str, headers: dict[str, Any], sent: bytes
) -> None:
    for end in (RawConnection.reset, lambda connection: connection.socket.close()):
        connection = RawConnection(server)
        connection.send(path, headers, sent)
        end(connection)
    with httpx.Client(base_url=server) as client:
        assert_serves(client)
    assert len(outbox_events(outbox)) == len(ROWS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"outcomes": [{"id": "a", "index": 0, "outcome": NaN}]}',
        b'{"outcomes": [{"id": "a", "index": 0, "outcome": 1e400}]}',
        b'{"outcomes": [{"id": "\\ud800", "index": 0, "outcome": 1}]}',
        b'{"outcomes": [{"id": "a", "index": 1' + b"0" * 400 + b', "outcome": 1}]}',
        b'{"outcomes": [{"outcome": 1}]}',
        b'{"outcomes": [{"key": "a", "id": "a", "index": 0, "outcome": 1}]}',
        b'{"outcomes": [{"key": "a", "index": 0, "outcome": 1}]}',
        b'{"outcomes": [{"key": "", "outcome": 1}]}',
        b'{"outcomes": [{"key": 5, "outcome": 1}]}',
        b'{"outcomes": [{"key": "\\ud800", "outcome": 1}]}',
        b'{"outcomes": [{"key": "' + b"a" * 257 + b'", "outcome": 1}]}',
        b'{"outcomes": [{"key": "a", "outcome": 1, "time": 1373000000}]}',
        b'{"outcomes": [{"key": "a", "outcome": 1, "time": "1373000000"}]}',
        b'{"outcomes": [{"key": "a", "outcome": 1, "time": "2013-07-01"}]}',
        b'{"outcomes": [{"key": "a", "outcome": 1, "time": "9999-01-01T00:00:00Z"}]}',
        b'{"outcomes": ' + b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_outcomes_rejects_invalid_body_with_4xx(client: httpx.Client, outbox: Outbox, body: bytes) -> None:
    answer = client.post("/outcomes", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]
    assert not outbox_events(outbox)
    assert_serves(client)


GENERATED = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
EXAMPLES = 40  # of each operation and mode: twenty seconds for all of them


@pytest.mark.parametrize("mode", GENERATED, ids=lambda mode: mode.value)
def test_responses_conform_to_openapi_for_valid_and_invalid_requests(server: str, mode: GenerationMode) -> None:
    page = schemathesis.openapi.from_url(f"{server}/openapi.json")
    operations = [result.ok() for result in page.get_all_operations()]  # type: ignore[union-attr]
    assert {operation.path for operation in operations} >= {*PATHS, "/outcomes", "/v2/models/{name}", "/readyz"}
    for operation in operations:

        @hypothesis.settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=EXAMPLES,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def answered(case: Any) -> None:
            case.call_and_validate(
                checks=[
                    not_a_server_error,
                    status_code_conformance,
                    content_type_conformance,
                    response_headers_conformance,
                    response_schema_conformance,
                ]
            )

        try:
            answered()
        except hypothesis.errors.Unsatisfiable:  # of an operation without parameters nothing is wrong
            assert mode is GenerationMode.NEGATIVE
    with httpx.Client(base_url=server) as client:
        assert_serves(client)
