"""Retrain requests by Kafka clients that are not part of the project, as docs/trainer.md shows them."""

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


def documented_command(client: str) -> str:
    """Return the page's command that publishes a retrain request with ``client``."""
    blocks = re.findall(r"```sh\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (command,) = [block for block in blocks if client in block and "driftloop.retrain_requested.v1" in block]
    return str(command)


@needs_kcat
def test_kcat_publishes_retrain_request_as_documented(stack: Stack) -> None:
    # Another model, for which no trainer runs here.
    script = (
        documented_command("kcat").replace("localhost:9092", stack.kafka.bootstrap_servers).replace("flights", "kcats")
    )
    subprocess.run(["/bin/bash", "-euc", script], check=True, timeout=60)

    def published() -> RetrainRequested | None:
        events = [
            event
            for event in reader.read_last(stack.kafka, stack.topics.retrain, 1_000)
            if isinstance(event, RetrainRequested) and event.model == "kcats"
        ]
        return events[-1] if events else None

    retrain = wait_until(published, "the event")
    assert (retrain.trigger, retrain.requested_by) == ("manual", "kcat")
