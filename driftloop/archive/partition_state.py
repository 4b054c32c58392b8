"""What is committed of a partition, kept in the metadata of its committed offset: its slices and its versions' windows.

A slice is written to the archive before its offset is committed, because a commit without the file would lose the rows.
A worker that is killed or frozen in between leaves a file whose rows the partition's next owner cuts into slices once
more, with other bounds. In the archive both files look alike, so a reader that lists the archive would count rows
twice. And a window spans several slices if several versions predict: the next owner has to go on with the windows that
are open.

Kafka stores a text with each committed offset, its metadata. The worker writes there where the partition's latest
slices begin, and at which of them each version's open window and the windows before it begin. The text is committed in
the transaction that commits the offset and publishes the verdicts, so it is always true, and the next owner receives it
together with the offset. docs/adr/0002-committed-slices-in-offset-metadata.md has the alternatives.

For ``A,A,14;3FK2A9.0.2+28.RS.SYP0O0`` and the committed offset 70, the slices begin at 10, 20 and 60, and one version
has a window before that begins at 10, and an open window that begins at 60 and has 80 of 1,000 rows. Numbers have the
base 36.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from driftloop.evaluation.quality_settings import COMMITTED_SLICES
from driftloop.events import Window

# With both, the text stays below the 4,096 bytes that brokers allow (offset.metadata.max.bytes).
MAX_SLICES = COMMITTED_SLICES
MAX_VERSIONS = 64
PRECEDING_WINDOWS = 2  # of a version, which are scored together with the next one
BASE = 36
DIGEST_DIGITS = 6
NUMBER = rf"[0-9A-Z]{{1,{len(np.base_repr(2**63 - 1, BASE))}}}"
VERSION = re.compile(
    rf"(?P<digest>[0-9A-Z]{{{DIGEST_DIGITS}}})(?P<begins>(\.{NUMBER}){{1,{PRECEDING_WINDOWS + 1}}})"
    rf"(\+(?P<open>{NUMBER}\.{NUMBER}\.{NUMBER}))?"
)
METADATA = re.compile(rf"(?P<slices>{NUMBER}(,{NUMBER})*)?;(?P<versions>[0-9A-Z.+,]*)")

Partition = tuple[str, int]
"""A topic and the number of a partition."""


class OpenWindow(NamedTuple):
    """A version's window that does not have all of its rows yet."""

    first_offset: int
    """Where its first slice begins."""
    rows: int
    length: int
    """The number of rows at which it closes."""
    opened_at: int
    """When its first event reached the topic, in seconds since 1970."""


class VersionWindows(NamedTuple):
    """A version's latest windows in a partition."""

    preceding: tuple[int, ...] = ()
    """Where the first slices of the latest closed windows begin, the oldest first."""
    open: OpenWindow | None = None

    @property
    def begins(self) -> tuple[int, ...]:
        """Where the first slice of each window begins, the oldest first; the rows from there on are still needed."""
        return self.preceding if self.open is None else (*self.preceding, self.open.first_offset)


class PartitionState(NamedTuple):
    """What is committed of a partition."""

    end: int
    """The committed offset, where the last slice ends."""
    slices: tuple[int, ...] = ()
    """Where the latest slices begin; each ends where the next one begins."""
    versions: Mapping[str, VersionWindows] = {}
    """By the digest of model, version and run, the one that was seen last at the end."""

    @property
    def final_before(self) -> int:
        """The offset before which no row is needed for a verdict any more."""
        return min((windows.begins[0] for windows in self.versions.values()), default=self.end)

    def windows(self, partition: Partition) -> list[Window]:
        """Return the slices in order of their offsets."""
        topic, number = partition
        return [
            Window(topic=topic, partition=number, first_offset=first, last_offset=following - 1)
            for first, following in pairwise((*self.slices, self.end))
        ]


@lru_cache(maxsize=1_000)
def version_digest(model: str, version: str, run_id: str | None = None) -> str:
    """Return a short name of a model's version, of a run if it is known; always the same."""
    names = [model, version, run_id] if run_id else [model, version]
    number = int.from_bytes(sha256(json.dumps(names).encode()).digest()) % BASE**DIGEST_DIGITS
    return _to_text(number).rjust(DIGEST_DIGITS, "0")


def to_metadata(state: PartitionState) -> str:
    """Return the metadata to commit together with a state's offset."""
    differences = [first - previous for previous, first in pairwise((0, *state.slices))]
    index = {first: number for number, first in enumerate(state.slices)}
    versions = [_version_text(digest, windows, index) for digest, windows in state.versions.items()]
    return f"{','.join(map(_to_text, differences))};{','.join(versions)}"


def from_metadata(offset: int, metadata: str) -> PartitionState:
    """Return the state that was committed, from the offset and its metadata.

    Metadata in another format, such as that of a tool that has reset the offset, counts as no slices and no windows.
    """
    unknown = PartitionState(offset)
    if (found := METADATA.fullmatch(metadata)) is None or found["slices"] is None:
        return unknown
    slices = tuple(accumulate(_to_numbers(found["slices"].split(","))))
    if any(first >= following for first, following in pairwise((*slices, offset))):
        return unknown
    versions: dict[str, VersionWindows] = {}
    for text in found["versions"].split(",") if found["versions"] else ():
        if (part := VERSION.fullmatch(text)) is None:
            return unknown
        numbers = _to_numbers(part["begins"].split(".")[1:])
        if any(number >= len(slices) for number in numbers):
            return unknown
        begins = [slices[number] for number in numbers]
        is_open = part["open"] is not None
        opened = OpenWindow(begins.pop(), *_to_numbers(part["open"].split("."))) if is_open else None
        versions[part["digest"]] = VersionWindows(tuple(begins), opened)
    return PartitionState(offset, slices, versions)


def _version_text(digest: str, windows: VersionWindows, index: Mapping[int, int]) -> str:
    text = ".".join([digest, *(_to_text(index[first]) for first in windows.begins)])
    if windows.open is None:
        return text
    _, *numbers = windows.open
    return f"{text}+{'.'.join(map(_to_text, numbers))}"


def _to_text(number: int) -> str:
    return np.base_repr(number, BASE)


def _to_numbers(texts: Iterable[str]) -> Sequence[int]:
    return [int(text, BASE) for text in texts]
