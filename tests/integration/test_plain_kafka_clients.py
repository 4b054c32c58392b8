"""A retrain is asked for by any client of Kafka, as docs/trainer.md says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from driftloop.events import RetrainRequested
from driftloop.kafka import reader
from stack.running import Stack
from tests.support.waiting import wait_until

DOCS = Path(__file__).resolve().parents[2] / "docs" / "trainer.md"

needs_kcat = pytest.mark.skipif(
    not shutil.which("kcat") and "CI" not in os.environ, reason="kcat is not installed (Debian's package kcat)"
)


def documented(client: str) -> str:
    """The command of the page that uses a client."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (found,) = [block for block in blocks if client in block and "driftloop.retrain.v1" in block]
    return str(found)


@needs_kcat
def test_kcat_publishes_a_retrain_as_documented(stack: Stack) -> None:
    # Another model: nobody trains for it here.
    script = documented("kcat").replace("localhost:9092", stack.kafka.bootstrap_servers).replace("flights", "kcats")
    subprocess.run(["/bin/bash", "-euc", script], check=True, timeout=60)

    def there() -> RetrainRequested | None:
        found = [
            event
            for event in reader.read_last(stack.kafka, stack.topics.retrain, 1_000)
            if isinstance(event, RetrainRequested) and event.model == "kcats"
        ]
        return found[-1] if found else None

    retrain = wait_until(there, "the event")
    assert (retrain.trigger, retrain.requested_by) == ("manual", "kcat")
