"""Whatever is sent, the answer is right or says in its protocol's words what is wrong, and nobody else notices."""

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

MEGABYTE = 1_000_000
MAX_ROWS = 100
V2 = "/v2/models/m/infer"
V1 = "/v1/models/m:predict"
PATHS = ("/predict", V1, "/invocations", V2)
# One row as each protocol, and each of MLflow's formats, says it.
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


class Sum:
    """An estimator that adds, and refuses what is not of its types."""

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        assert [str(dtype) for dtype in frame.dtypes] == ["float64", "int64", "object"]
        assert all(isinstance(word, str) for word in frame["word"])
        return np.asarray(np.nan_to_num(frame["x"].to_numpy()) + frame["n"].to_numpy())


@pytest.fixture(scope="module")
def manager() -> StaticModelManager:
    always = StaticModelManager()
    frame = pd.DataFrame({"x": [0.5], "n": [1], "word": ["a"]})
    always.serving = serving_model(Sum(), frame, "predict", max_rows=MAX_ROWS)
    return always


@pytest.fixture(scope="module")
def outbox_of_all(tmp_path_factory: pytest.TempPathFactory) -> Outbox:
    return Outbox(tmp_path_factory.mktemp("outbox"), OutboxSettings())


@pytest.fixture(scope="module")
def server(serve: Any, manager: StaticModelManager, outbox_of_all: Outbox) -> Iterator[str]:
    """One for all tests: after each it has to go on."""
    with serve(manager, outbox_of_all) as url:
        yield url


@pytest.fixture
def outbox(outbox_of_all: Outbox) -> Outbox:
    """Empty."""
    outbox_of_all.delete_through(2**62)
    return outbox_of_all


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


def answers(client: httpx.Client) -> None:
    """The server goes on, in each protocol."""
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=body, headers=JSON)
        assert answer.status_code == 200, (form, answer.text)
        said = answer.json()
        (score,) = said["outputs"][0]["data"] if path == V2 else said["predictions"]
        assert score == 3.5


def refused(path: str, status: int, text: str, *, expected: int | None = None) -> None:
    """A clear answer of 4xx, in the protocol's words."""
    assert 400 <= status < 500 if expected is None else status == expected, (path, status, text[:1_000])
    said = json.loads(text)
    if path == "/predict":
        message = said["detail"] if isinstance(said["detail"], str) else said["detail"][0]["msg"]
        assert isinstance(said["detail"], str) or said["detail"][0]["loc"][0] in ("body", "header")
    elif path == "/invocations":
        assert said.keys() == {"error_code", "message"}
        message = said["message"]
    else:
        assert said.keys() == {"error"}
        message = said["error"]
    assert isinstance(message, str)
    assert message
    assert "Traceback" not in message


NO_REQUESTS = {
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


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_what_is_no_request_is_a_clear_4xx_in_each_protocol(client: httpx.Client, outbox: Outbox, name: str) -> None:
    for path in PATHS:
        answer = client.post(path, content=NO_REQUESTS[name], headers=JSON)
        refused(path, answer.status_code, answer.text)
        assert len(answer.content) < MEGABYTE
    assert not outbox_events(outbox)
    answers(client)


@pytest.mark.parametrize("path", PATHS)
def test_what_libraries_say_is_told_briefly_and_as_text(path: str) -> None:
    said = protocols_by_path("m")[path].encode_error(
        RequestError(400, "the column \ud800" + "a" * MEGABYTE + " is wrong")
    )
    refused(path, 400, said.decode())
    assert len(said) < 3_000
    assert b"the column ?" in said
    assert b"is wrong" in said


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
NOWHERE = {
    *(("x", value) for value in ("{}", *VALUES["x"][-4:])),
    *(("n", value) for value in ("NaN", "null", "{}", str(-(2**63) - 1), "1" + "0" * 400)),
    *(("word", value) for value in ('"\\ud800"', '"a\\udc00"')),
}
EVERYWHERE = {("x", "2"), ("x", "1e-400"), ("x", "-0.0"), *(("word", value) for value in VALUES["word"][2:8])}


@pytest.mark.parametrize("form", ROWS)
def test_an_odd_value_is_a_clear_4xx_or_the_event_says_what_the_model_was_given(
    client: httpx.Client, outbox: Outbox, form: str
) -> None:
    kept = 0
    for column, value in [(column, value) for column, values in VALUES.items() for value in values]:
        path, body = row(form, **{column: value})
        answer = client.post(path, content=body, headers=JSON)
        taken = answer.status_code == 200
        assert taken or (column, value) not in EVERYWHERE, (column, value, answer.text)
        assert not taken or (column, value) not in NOWHERE, (column, value)
        kept += taken
        all_events = outbox_events(outbox)
        assert len(all_events) == kept, (column, value)
        if taken:
            event: Any = all_events[-1]
            x, n, word = (cells[0] for cells in event.features.values())
            assert event.predictions == [float((x or 0) + n)], (column, value)
            assert isinstance(word, str)
        else:
            refused(path, answer.status_code, answer.text)
            assert len(answer.content) < 10_000
    answers(client)


# The body of a frame that takes gigabytes once all rows are as wide, or all texts as long, as one of them.
MANY = b",".join([b"1"] * 40_000)
FILLED_UP = {
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


@pytest.mark.parametrize("name", FILLED_UP)
def test_a_few_bytes_that_would_become_gigabytes_are_refused(client: httpx.Client, outbox: Outbox, name: str) -> None:
    kind = "text/csv" if name.endswith("table") else "application/json"
    answer = client.post("/invocations", content=FILLED_UP[name], headers={"Content-Type": kind})
    refused("/invocations", answer.status_code, answer.text, expected=413)
    assert not outbox_events(outbox)
    answers(client)


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
        ({**JSON, "Inference-Header-Content-Length": "-1"}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "10"}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "1" + "0" * 30}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "9" * 5_000}, {V2: 400}),
        ({**JSON, "Inference-Header-Content-Length": "ten"}, {V2: 400}),
    ],
)
def test_an_odd_header_is_a_clear_4xx_where_it_matters(
    client: httpx.Client, headers: dict[str, str], statuses: dict[str, int]
) -> None:
    sent = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    for form in ("own", "V1 by name", "split", "V2"):
        path, body = row(form)
        answer = client.post(path, content=body, headers=sent)
        if path in statuses:
            refused(path, answer.status_code, answer.text, expected=statuses[path])
        else:
            assert answer.status_code == 200, (path, answer.text)
    answers(client)


def test_compressed_bodies_are_a_415(client: httpx.Client) -> None:
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=gzip.compress(body), headers={**JSON, "Content-Encoding": "gzip"})
        refused(path, answer.status_code, answer.text, expected=415)


def test_without_its_header_a_compressed_body_is_a_4xx(client: httpx.Client) -> None:
    for form in ROWS:
        path, body = row(form)
        answer = client.post(path, content=gzip.compress(body), headers=JSON)
        refused(path, answer.status_code, answer.text)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_another_method_is_a_405_that_names_post(server: str, method: str) -> None:
    for path in (*PATHS, "/v2/models/m/versions/7/infer"):
        answer = httpx.request(method, server + path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        if method != "HEAD":
            refused("/v2" if path.startswith("/v2") else path, answer.status_code, answer.text)


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/predict/", "/predict/1", "//predict", "/v2/models/m/versions//infer",
     "/v2/models//infer", "/v2/models/%00/infer", "/v2/models/%ff/infer",
     "/v1/models/m:explain", "/v1/models/another:predict", "/v2/models/another/infer",
     "/v2/models/m/versions/8/infer", "/..%2f..%2fetc/passwd", "/" + "a" * 10_000],
)  # fmt: skip
def test_an_unknown_path_is_a_clear_4xx(client: httpx.Client, path: str) -> None:
    answer = client.post(path, content=row("V2")[1], headers=JSON)
    assert answer.status_code in (404, 405)
    assert answer.json()
    answers(client)


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
def test_a_tensor_that_contradicts_itself_is_a_400(
    client: httpx.Client, outbox: Outbox, field: str, value: Any
) -> None:
    answer = client.post(V2, content=tensor(**{field: value}), headers=JSON)
    refused(V2, answer.status_code, answer.text, expected=400)
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
        ({"sizes": {}, "x": np.array([np.nan]).tobytes()}, 200),
    ],
)
def test_a_binary_tensor_whose_sizes_lie_is_a_400(
    client: httpx.Client, outbox: Outbox, lies: dict[str, Any], status: int
) -> None:
    length, body = binary(**lies)
    answer = client.post(V2, content=body, headers={"Inference-Header-Content-Length": length.decode()})
    assert len(outbox_events(outbox)) == (status == 200)
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        refused(V2, answer.status_code, answer.text, expected=400)
    answers(client)


def test_more_rows_than_may_be_are_refused(client: httpx.Client, outbox: Outbox) -> None:
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
        refused(path, answer.status_code, answer.text, expected=422)
        assert str(MAX_ROWS) in answer.text
    assert not outbox_events(outbox)
    answers(client)


class Line:
    """A connection on which anything can be said."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)

    def say(self, path: str, headers: dict[str, Any], *parts: bytes) -> None:
        lines = [f"POST {path} HTTP/1.1", "Host: here", *(f"{name}: {value}" for name, value in headers.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode() + b"".join(parts))

    def heard(self) -> tuple[int, str]:
        """Status and body of the answer, after which the server has closed the connection."""
        answer = b""
        while part := self.socket.recv(65_536):
            answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def hang_up(self) -> None:
        """At once, and with what was not read."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


@pytest.mark.parametrize("path", [*PATHS, "/outcomes"])
def test_a_body_over_the_limit_is_a_413_whether_it_says_so_or_not(server_of: Any, path: str) -> None:
    with server_of(max_body_bytes=1_000) as url:
        for headers, sent in (
            ({"Content-Length": 1_001}, b""),  # it is not waited for
            ({"Content-Length": 10**15}, b""),
            ({"Transfer-Encoding": "chunked"}, b"1f5\r\n" + b" " * 501 + b"\r\n1f5\r\n" + b" " * 501 + b"\r\n"),
        ):
            line = Line(url)
            line.say(path, headers, sent)
            status, text = line.heard()
            refused("/predict" if path == "/outcomes" else path, status, text, expected=413)
            assert "DRIFTLOOP_PREDICTOR__MAX_BODY_BYTES" in text
        with httpx.Client(base_url=url) as client:
            answers(client)


@pytest.mark.parametrize("path", [*PATHS, "/outcomes"])
def test_a_slow_client_gets_a_408_and_holds_up_nobody(server_of: Any, path: str) -> None:
    with server_of(body_timeout_seconds=0.5) as url, httpx.Client(base_url=url) as client:
        slow = Line(url)
        slow.say(path, {"Content-Length": 1_000})
        told = threading.Event()

        def trickle() -> None:
            while not told.wait(0.02):
                slow.socket.sendall(b" ")

        trickling = threading.Thread(target=trickle)
        trickling.start()
        try:
            answers(client)  # meanwhile
            status, text = slow.heard()
        finally:
            told.set()
            trickling.join()
        refused("/predict" if path == "/outcomes" else path, status, text, expected=408)
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
def test_an_upload_that_breaks_off_is_no_event_and_the_server_goes_on(
    server: str, outbox: Outbox, path: str, headers: dict[str, Any], sent: bytes
) -> None:
    for end in (Line.hang_up, lambda line: line.socket.close()):
        line = Line(server)
        line.say(path, headers, sent)
        end(line)
    with httpx.Client(base_url=server) as client:
        answers(client)
    assert len(outbox_events(outbox)) == len(ROWS)


@pytest.mark.parametrize(
    "body",
    [
        b'{"outcomes": [{"id": "a", "index": 0, "outcome": NaN}]}',
        b'{"outcomes": [{"id": "a", "index": 0, "outcome": 1e400}]}',
        b'{"outcomes": [{"id": "\\ud800", "index": 0, "outcome": 1}]}',
        b'{"outcomes": [{"id": "a", "index": 1' + b"0" * 400 + b', "outcome": 1}]}',
        b'{"outcomes": ' + b"[" * 100_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_outcomes_that_are_none_are_a_clear_4xx(client: httpx.Client, outbox: Outbox, body: bytes) -> None:
    answer = client.post("/outcomes", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]
    assert not outbox_events(outbox)
    answers(client)


GENERATED = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
EXAMPLES = 40  # of each operation and mode: twenty seconds for all of them


@pytest.mark.parametrize("mode", GENERATED, ids=lambda mode: mode.value)
def test_the_page_says_what_is_answered_to_whatever_it_allows_or_forbids(server: str, mode: GenerationMode) -> None:
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
        answers(client)
