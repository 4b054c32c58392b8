"""Test that a partition's next owner reads slices and windows from the offset metadata."""

from random import Random

import pytest

from driftloop.archive.partition_state import (
    MAX_SLICES,
    MAX_VERSIONS,
    OpenWindow,
    PartitionState,
    VersionWindows,
    from_metadata,
    to_metadata,
    version_digest,
)
from driftloop.events import Window

ONE, TWO = version_digest("m", "1"), version_digest("m", "2")
STATE = PartitionState(
    70,
    (10, 20, 60),
    {ONE: VersionWindows((10,), OpenWindow(60, 80, 1_000, 1_767_225_600)), TWO: VersionWindows((10, 20))},
)


def test_next_owner_restores_slices_and_windows_from_metadata() -> None:
    metadata = to_metadata(STATE)
    assert metadata == f"A,A,14;{ONE}.0.2+28.RS.T85S00,{TWO}.0.1"
    restored = from_metadata(70, metadata)
    assert restored == STATE
    assert list(restored.versions) == [ONE, TWO]  # the one that was seen last at the end
    assert restored.windows(("predictions", 3)) == [
        Window(topic="predictions", partition=3, first_offset=first, last_offset=last)
        for first, last in ((10, 19), (20, 59), (60, 69))
    ]


def test_state_without_slices_is_restored() -> None:
    assert from_metadata(70, to_metadata(PartitionState(70))) == PartitionState(70)


def test_metadata_stays_below_the_broker_s_limit(random_source: Random) -> None:
    slices = [10**12]
    for _ in range(MAX_SLICES - 1):
        slices.append(slices[-1] + random_source.randint(1, 10**7))
    versions = {
        version_digest("m", str(number)): VersionWindows(
            (slices[-9], slices[-8]), OpenWindow(slices[-7], random_source.randint(1, 10**5), 10**5, 1_767_225_600)
        )
        for number in range(MAX_VERSIONS)
    }
    state = PartitionState(slices[-1] + 10**7, tuple(slices), versions)
    metadata = to_metadata(state)
    assert len(metadata) < 4_096
    assert from_metadata(state.end, metadata) == state


def test_versions_have_different_digests() -> None:
    names = [("m", "1"), ("m", "11"), ("m/1", "1"), ("m", "1/1"), ("", "m1")]
    assert len({version_digest(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    "metadata",
    [
        *("", "somebody reset it", "0,10,20", "5,-3;", "5,0;", "3,C;", "F;", "Z" * 40 + ";"),
        *("1;1", f"1;{ONE}", f"1;{ONE}.1", f"1;{ONE}.0.0.0.0", f"1;{ONE}.0+1.1", f"1;{ONE}.0,"),
    ],
)
def test_metadata_in_another_format_gives_no_slices(metadata: str) -> None:
    assert from_metadata(15, metadata) == PartitionState(15)
