"""What every object store promises: GCS's, S3's and Azure's protocol spoken by local servers, and a folder."""

import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest

from driftloop import archive
from driftloop.archive import erasures
from driftloop.archive.erasing import FileEraser
from driftloop.archive.erasures import ErasedPartition, Erasure, ErasureRequest, Tombstones
from driftloop.archive.layout import slice_path
from driftloop.archive.merging import MergeLimits, choose_full, list_partition, merge_slices
from driftloop.errors import InvalidInput, StorageUnavailable
from driftloop.events import Window
from driftloop.settings import StorageSettings, TopicsSettings
from driftloop.storage import dvc
from driftloop.storage.archive_files import ArchiveDownload
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_reference
from tests.support.archived_slices import TOPIC, archive_slices, expected_ids, read_ids
from tests.support.drift_windows import store_reference
from tests.support.ports import reserve_ports
from tests.support.waiting import wait_until

FIXTURES = {"gs": "storage", "s3": "s3_storage", "az": "azure_storage"}


@pytest.fixture(params=["gs", "s3", "az", "file"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> StorageSettings:
    """The settings of a store, in a folder of this test alone."""
    if request.param == "file":
        folder = tmp_path / "a store"
        folder.mkdir()
        return StorageSettings(url=folder.as_uri())
    server: StorageSettings = request.getfixturevalue(FIXTURES[request.param])
    return StorageSettings(url=f"{server.url}/folder/{secrets.token_hex(4)}", endpoint=server.endpoint)


@pytest.fixture
def store(settings: StorageSettings) -> ObjectStore:
    return ObjectStore(settings)


def paths_of(store: ObjectStore, prefix: str) -> list[str]:
    """Return the paths that start with a prefix, in the order of the listing."""
    return [found.path for found in store.list_objects(prefix)]


def now() -> datetime:
    return datetime.now(UTC)


def test_object_is_written_replaced_and_deleted(store: ObjectStore) -> None:
    assert not store.exists("reports/m/1/a.html")
    with pytest.raises(FileNotFoundError):
        store.read("reports/m/1/a.html")
    with pytest.raises(FileNotFoundError):
        store.read_ranges("reports/m/1/a.html", [(0, 2), (4, 6)])
    with pytest.raises(FileNotFoundError), store.open("reports/m/1/a.html") as opened:
        opened.read()
    store.write("reports/m/1/a.html", b"first")
    assert (store.exists("reports/m/1/a.html"), store.read("reports/m/1/a.html")) == (True, b"first")
    store.write("reports/m/1/a.html", b"")
    assert store.read("reports/m/1/a.html") == b""
    store.write("reports/m/1/a.html", b"second")
    assert store.read("reports/m/1/a.html") == b"second"
    assert store.require_answer() is store
    with store.open("reports/m/1/a.html") as opened:
        opened.seek(3)
        assert opened.read(2) == b"on"
    assert store.read_ranges("reports/m/1/a.html", [(0, 2), (4, 6), (3, 4)]) == [b"se", b"nd", b"o"]
    for _ in range(2):
        store.delete("reports/m/1/a.html")
        assert not store.exists("reports/m/1/a.html")


def test_paths_are_listed_by_their_beginning(store: ObjectStore) -> None:
    assert store.list_objects("events/predictions/") == []
    topics, numbers = ("outcomes", "predictions"), (0, 1, 10)
    paths = [f"events/{topic}/{topic}-{number}.parquet" for topic in topics for number in numbers]
    for path in [*reversed(paths), "events/predictions-of-another/x"]:
        store.write(path, b"x")
    assert paths_of(store, "events/predictions/") == paths[3:]
    assert paths_of(store, "events/predictions/predictions-1") == paths[4:]
    assert store.list_objects("events/predictions/predictions-2") == []
    assert paths_of(store, "events/") == [*paths[:3], "events/predictions-of-another/x", *paths[3:]]
    store.delete(paths[3])
    assert paths_of(store, "events/predictions/") == paths[4:]


def test_objects_are_listed_with_size_and_time_of_change(store: ObjectStore) -> None:
    assert store.list_objects("reports/") == []
    store.write("reports/b/c", b"123")
    store.write("events/x", b"x")

    def changed_later() -> bool:
        """Tell whether the store has another time for an object that is written again; some have whole seconds."""
        store.write("reports/a", b"1")
        a, b = store.list_objects("reports/")
        return a.modified > b.modified

    wait_until(lambda: changed_later() or None, "a change is later than the one before")
    assert [(found.path, found.size) for found in store.list_objects("reports/")] == [
        ("reports/a", 1),
        ("reports/b/c", 3),
    ]
    assert store.list_modified_before("reports/", now() + timedelta(minutes=1)) == ["reports/a", "reports/b/c"]
    assert store.list_modified_before("reports/", store.list_objects("reports/a")[0].modified) == ["reports/b/c"]
    assert store.list_modified_before("reports/", now() - timedelta(minutes=1)) == []


def test_parquet_file_is_read_as_it_was_written(store: ObjectStore) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    store.write_parquet("datasets/x.parquet", frame)
    pd.testing.assert_frame_equal(store.read_parquet("datasets/x.parquet"), frame)
    assert list(store.read_parquet("datasets/x.parquet", ["b"])) == ["b"]


def test_reader_sees_the_old_or_the_new_object_and_never_a_part(store: ObjectStore) -> None:
    contents = {letter * 3_000_000 for letter in (b"a", b"b")}
    store.write("events/x", next(iter(contents)))
    is_done = threading.Event()
    seen: list[bool] = []

    def read() -> None:
        while not is_done.is_set():
            seen.append(store.read("events/x") in contents and paths_of(store, "events/") == ["events/x"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        rounds = 0
        while rounds < 5 or len(seen) < 20:
            for content in contents:
                store.write("events/x", content)
            rounds += 1
    finally:
        is_done.set()
        reader.join()
    assert all(seen)


def test_reference_is_loaded_as_it_was_saved(store: ObjectStore) -> None:
    saved = store_reference(store, run_id="run")
    loaded = load_reference(store, "m", "1")
    pd.testing.assert_frame_equal(loaded.rows, saved.rows)
    assert loaded.profile == saved.profile


def test_archived_slice_is_downloaded_for_sql(store: ObjectStore, tmp_path: Path) -> None:
    window = Window(topic="outcomes", partition=0, first_offset=0, last_offset=1)
    frame = pd.DataFrame({"_id": ["a", "b"], "outcome": [0.0, 1.0]})
    store.write_parquet(slice_path(window), frame)
    (file,) = ArchiveDownload(store, TopicsSettings(), tmp_path / "downloaded").fetch().outcomes
    pd.testing.assert_frame_equal(pd.read_parquet(file), frame)


def test_archive_is_merged_erased_and_read(store: ObjectStore, settings: StorageSettings) -> None:
    archive_slices(store, range(8))
    files = list_partition(store, (TOPIC, 0))
    limits = MergeLimits(slices=5)
    chosen = choose_full(files.slices, limits)
    assert [len(merged.slices.files) for merged in merge_slices(store, chosen, files.slices[5], limits)] == [5]
    assert read_ids(store) == expected_ids(range(8))

    of_merged, of_slice = 12, 63
    erased = ErasedPartition.of_rows(TOPIC, 0, {of_merged: None, of_slice: None})
    erasure = Erasure(
        requested_by="somebody",
        reason="asked to",
        request=ErasureRequest(kind="id", values=2),
        respected_until=None,
        partitions=[erased],
        counts={},
    )
    erasures.save(store, erasure)
    known = Tombstones(store).current()
    assert [file.rows for file in FileEraser(store).run(TOPIC, 0, known)] == [1, 1]
    assert FileEraser(store).run(TOPIC, 0, known) == []
    left = sorted({*expected_ids(range(8))} - {f"event-{of_merged}", f"event-{of_slice}"})
    assert read_ids(store) == left
    rows = archive.read(storage=settings, columns=["_id"], where="x >= 0")
    assert sorted(rows["_id"].to_pylist()) == left


def test_dataset_is_pulled_as_it_was_pushed(settings: StorageSettings, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pd.DataFrame({"x": range(1_000)}).to_parquet(file)
    assert not dvc.is_pushed(settings, dvc.parse_pointer(dvc.make_pointer(file)))
    pointer = dvc.push(settings, file)
    assert pointer == dvc.make_pointer(file)
    assert dvc.is_pushed(settings, dvc.parse_pointer(pointer))
    assert dvc.pull(settings, pointer, tmp_path / "pulled").read_bytes() == file.read_bytes()
    missing = dvc.make_pointer(Path(__file__))
    with pytest.raises(dvc.DatasetVersionNotFound, match=f"{settings.url}/datasets does not have test_object_store.py"):
        dvc.pull(settings, missing, tmp_path / "missing")


SECONDS_UNTIL_UNAVAILABLE = {"gs": 60, "s3": 60, "az": 60}
"""The clients' own attempts, on a busy machine."""


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for servers that do not look at them."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "dGVzdA==")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("scheme", SECONDS_UNTIL_UNAVAILABLE)
def test_server_that_refuses_connections_is_unavailable(scheme: str) -> None:
    endpoint = f"http://127.0.0.1:{reserve_ports(1)[0]}"
    assert_unavailable(ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint)), scheme)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("scheme", SECONDS_UNTIL_UNAVAILABLE)
def test_server_that_answers_with_an_error_of_its_own_is_unavailable(scheme: str) -> None:
    with server_that_answers(503) as endpoint:
        assert_unavailable(ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint)), scheme)


def assert_unavailable(store: ObjectStore, scheme: str) -> None:
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match=f"the object store {scheme}://b does not answer: ") as raised:
        store.read("events/x")
    assert time.monotonic() - began < SECONDS_UNTIL_UNAVAILABLE[scheme]
    assert "dGVzdA" not in str(raised.value)


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("scheme", SECONDS_UNTIL_UNAVAILABLE)
def test_answer_is_awaited_only_as_long_as_a_command_wants(scheme: str) -> None:
    with server_that_answers(503) as endpoint:
        store = ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint))
        began = time.monotonic()
        with pytest.raises(StorageUnavailable):
            store.require_answer(seconds=0.5)
        assert time.monotonic() - began < 10


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("accepts", [False, True], ids=["closed", "silent"])
@pytest.mark.parametrize("scheme", SECONDS_UNTIL_UNAVAILABLE)
def test_command_learns_within_a_quarter_of_a_minute_that_no_server_answers(scheme: str, accepts: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        if not accepts:
            server.close()
        store = ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint))
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match=f"the object store {scheme}://b does not answer: "):
            store.require_answer()
        assert time.monotonic() - began < 15


@pytest.mark.usefixtures("credentials")
def test_server_that_does_not_answer_is_unavailable_before_the_watchdog_ends_a_service() -> None:
    """The libraries' own timeouts: none at all for GCS, a minute an attempt for S3 and Azure."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        stores = {
            scheme: ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint))
            for scheme in SECONDS_UNTIL_UNAVAILABLE
        }
        for done in [pool.submit(assert_unavailable, store, scheme) for scheme, store in stores.items()]:
            done.result()


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("scheme", SECONDS_UNTIL_UNAVAILABLE)
def test_refusal_is_no_outage(scheme: str) -> None:
    with server_that_answers(403) as endpoint:
        store = ObjectStore(StorageSettings(url=f"{scheme}://b", endpoint=endpoint))
        with pytest.raises(Exception, match=r"(?i)forbidden|denied|403|authori") as raised:
            store.read("events/x")
    assert not isinstance(raised.value, StorageUnavailable)


@contextmanager
def server_that_answers(status: int) -> Iterator[str]:
    """Run a server that answers every request with a status and no content; yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  # the names that the base class calls

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_azure_server_needs_account_and_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InvalidInput, match="AZURE_STORAGE_ACCOUNT_NAME is not set"):
        ObjectStore(StorageSettings(url="az://c", endpoint="http://127.0.0.1:10000/test"))
