"""A broker without services, and small disks, for tests that cause one fault of one part."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.settings import KafkaSettings
from stack.running import Stack
from tests.support.external_tools import require_tool
from tests.support.running_stack import isolated_settings
from tests.support.small_disk import NoSmallDisk, mounted_disk, skip_without_small_disk
from tests.support.watched_stack import WatchedStack, watched_stack

SMALL_DISK_MB = 32


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A running broker without topics; each test has its own."""
    stack = Stack(isolated_settings(tmp_path_factory.mktemp("broker")), print)
    try:
        stack.start("kafka")
        yield stack.kafka
    finally:
        stack.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of its own, in memory; the test is skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        with mounted_disk(folder, SMALL_DISK_MB):
            yield folder
    except NoSmallDisk as error:
        skip_without_small_disk(error)


@pytest.fixture(scope="session")
def watched_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedStack]:
    """The stack on which all runbooks are tried."""
    require_tool("prometheus")
    with watched_stack(tmp_path_factory.mktemp("watched")) as watched:
        yield watched


@pytest.fixture
def watched(watched_for_all: WatchedStack, request: pytest.FixtureRequest) -> Iterator[WatchedStack]:
    """The stack for one drill, whose alerts are silent at the start; afterwards all is as it was."""
    watched_for_all.drilled = request.function.alerts
    watched_for_all.recover()
    watched_for_all.wait_until_ends()
    yield watched_for_all
    watched_for_all.recover()
