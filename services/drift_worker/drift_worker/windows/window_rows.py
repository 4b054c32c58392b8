"""The rows of each version's open window and of the windows before it, from memory or from the archive."""

from collections.abc import Collection, Iterator, Mapping
from itertools import dropwhile
from typing import NamedTuple

import pandas as pd
import structlog

from drift_worker.windows import archive
from driftloop.archive.partition_state import Partition, PartitionState, version_digest
from driftloop.drift.cumulated import CumulatedState
from driftloop.errors import ArchiveUnreadable
from driftloop.events import ID_COLUMN, MODEL_COLUMN, VERSION_COLUMN, Window
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.parallel_reads import map_reads

log = structlog.get_logger(__name__)


class SliceRows(NamedTuple):
    """A version's rows in a slice, at least one."""

    slice: Window
    rows: pd.DataFrame


class SliceSums(NamedTuple):
    """A version's sums of the cumulated score, after the window that ends with a slice."""

    slice: Window
    state: CumulatedState


class WindowRows:
    """The rows of each version that its next verdict needs, and the sums of the cumulated score that it adds to.

    They are kept in memory. After a partition is assigned they are read from its committed slices, once; so verdicts
    are the same whichever worker gives them. The archive may have other slices too, orphans, so it is not listed. A
    file that is damaged is left out and logged, because the worker would never get past it otherwise.
    """

    def __init__(self, store: ObjectStore) -> None:
        """Start without rows."""
        self._store = store
        self._unread: dict[Partition, PartitionState] = {}
        self._rows: dict[Partition, dict[str, list[SliceRows]]] = {}
        self._sums: dict[Partition, dict[str, SliceSums]] = {}

    def resume(self, partition: Partition, state: PartitionState) -> None:
        """Go on behind what is committed of a partition, whose rows are read when they are needed."""
        self._unread[partition] = state

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop partitions that another worker owns now."""
        for partition in partitions:
            self._unread.pop(partition, None)
            self._rows.pop(partition, None)
            self._sums.pop(partition, None)

    def event_ids(self, partition: Partition) -> set[str]:
        """Return the ids of the events in the open windows and in those before them."""
        found = (part.rows[ID_COLUMN].unique() for parts in self._of(partition).values() for part in parts)
        return {str(event_id) for ids in found for event_id in ids}

    def add(self, window: Window, rows: pd.DataFrame) -> None:
        """Add the rows of a slice."""
        held = self._of((window.topic, window.partition))
        for version, part in _by_version(window, rows):
            held.setdefault(version, []).append(part)

    def of_window(self, partition: Partition, version: str, first_offset: int) -> list[SliceRows]:
        """Return a version's rows from the slice that begins at an offset on, by slice."""
        return [part for part in self._of(partition).get(version, []) if part.slice.first_offset >= first_offset]

    def sums(self, partition: Partition, version: str) -> CumulatedState | None:
        """Return a version's sums after the window before the open one; ``None`` if no file of the windows has them."""
        self._of(partition)
        found = self._sums.get(partition, {}).get(version)
        return found.state if found else None

    def keep_sums(self, window: Window, sums: Mapping[str, CumulatedState]) -> None:
        """Keep the sums by version that the file of a slice has."""
        held = self._sums.setdefault((window.topic, window.partition), {})
        held.update({version: SliceSums(window, state) for version, state in sums.items()})

    def drop_unneeded(self, partition: Partition, state: PartitionState) -> None:
        """Drop rows and sums of before the windows that a state names: another worker would not read them."""
        self._rows[partition] = _needed(self._of(partition), state)
        self._sums[partition] = _needed_sums(self._sums.get(partition, {}), state)

    def _of(self, partition: Partition) -> dict[str, list[SliceRows]]:
        """Return a partition's rows by version; read them if it was assigned. Raises :class:`StorageUnavailable`."""
        if (state := self._unread.get(partition)) is not None:
            self._rows[partition], self._sums[partition] = self._read(partition, state)
            del self._unread[partition]
        return self._rows.setdefault(partition, {})

    def _read(
        self, partition: Partition, state: PartitionState
    ) -> tuple[dict[str, list[SliceRows]], dict[str, SliceSums]]:
        slices = dropwhile(lambda each: each.first_offset < state.final_before, state.windows(partition))
        held: dict[str, list[SliceRows]] = {}
        sums: dict[str, SliceSums] = {}

        def read(window: Window) -> tuple[dict[str, list[SliceRows]], dict[str, SliceSums]]:
            try:
                rows, states = archive.read_slice_with_sums(self._store, window)
            except FileNotFoundError:  # a slice without rows has no file
                return {}, {}
            except ArchiveUnreadable as error:
                log.warning("archive.slice_skipped", window=window.name, error=str(error))
                return {}, {}
            return (
                _needed({version: [part] for version, part in _by_version(window, rows)}, state),
                _needed_sums({version: SliceSums(window, each) for version, each in states.items()}, state),
            )

        for found, later in map_reads(read, slices):
            sums.update(later)
            for version, parts in found.items():
                held.setdefault(version, []).extend(parts)
        return held, sums


def _by_version(window: Window, rows: pd.DataFrame) -> Iterator[tuple[str, SliceRows]]:
    for (model, version, run_id), of_version in rows.groupby([MODEL_COLUMN, VERSION_COLUMN, archive.run_ids(rows)]):
        yield version_digest(str(model), str(version), str(run_id)), SliceRows(window, of_version)


def _needed(held: dict[str, list[SliceRows]], state: PartitionState) -> dict[str, list[SliceRows]]:
    return {
        version: [part for part in parts if part.slice.first_offset >= state.versions[version].begins[0]]
        for version, parts in held.items()
        if version in state.versions
    }


def _needed_sums(sums: Mapping[str, SliceSums], state: PartitionState) -> dict[str, SliceSums]:
    return {
        version: found
        for version, found in sums.items()
        if version in state.versions and found.slice.first_offset >= state.versions[version].begins[0]
    }
