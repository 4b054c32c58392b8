"""Only names that are close enough to be a slip are proposed."""

import pytest

from driftloop.near_names import near_names


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("acuracy", ["accuracy"]),
        ("REPAYED", ["Repaid"]),
        ("rating", ["Ratings"]),
        ("xyzzy", []),
        ("quality", []),
    ],
)
def test_close_names_are_found(name: str, near: list[str]) -> None:
    assert near_names(name, ["accuracy", "Repaid", "Ratings", "alcohol", "pH"]) == near
