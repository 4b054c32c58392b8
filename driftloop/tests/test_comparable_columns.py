"""Columns of every kind become numbers or categories, alike in a reference and in a window from the archive."""

import pandas as pd
import pytest

from driftloop.drift.comparable_columns import FeatureKind, to_comparable

TIMES = pd.Series(pd.to_datetime(["2026-01-10T12:00Z", "2026-01-11T00:00Z"]))
NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "cells", "expected", "unreadable"),
    [
        pytest.param("number", [1, "2.5"], [1.0, 2.5], 0, id="numbers"),
        pytest.param("number", ["x", None], [NAN, NAN], 0.5, id="no numbers"),
        pytest.param("category", ["a", None], ["a", None], 0, id="categories"),
        pytest.param("boolean", [True, None], ["true", None], 0, id="booleans"),
        pytest.param("boolean", ["false", "perhaps"], ["false", None], 0.5, id="texts of booleans"),
        pytest.param("boolean", ["True", "False"], ["true", "false"], 0, id="booleans beside texts"),
        pytest.param("datetime", ["2026-01-09T12:00:00Z", "2026-01-11"], [-1.0, 0.0], 0, id="datetimes as texts"),
        pytest.param("datetime", ["1678-01-01", "2261-12-31T12:00Z"], [-127_113.5, 86_186.5], 0, id="centuries away"),
        pytest.param("datetime", ["0001-01-01", "9999-12-31"], [NAN, NAN], 1, id="beyond the range of datetimes"),
        pytest.param("datetime", ["soon", None], [NAN, NAN], 0.5, id="no datetimes"),
        pytest.param("datetime", [True, 1e300], [NAN, NAN], 1, id="booleans and numbers"),
        pytest.param("text", ["abc", None], [3.0, NAN], 0, id="texts"),
        pytest.param("text", [12, ""], [NAN, 0.0], 0.5, id="no texts"),
    ],
)
def test_column_is_compared_by_its_kind(
    kind: FeatureKind, cells: list[object], expected: list[object], unreadable: float
) -> None:
    comparable = to_comparable(
        pd.DataFrame({"c": pd.Series(cells, dtype=object)}), {"c": kind, "absent": "number"}, TIMES
    )
    pd.testing.assert_series_equal(comparable.rows["c"], pd.Series(expected, name="c"), check_dtype=False)
    assert comparable.unreadable == ({"c": unreadable} if unreadable else {})


@pytest.mark.parametrize("values", [[True, False], [1, 2], [0.5, 1e300], [NAN, NAN], [10**30, "x"]])
@pytest.mark.parametrize("kind", ["number", "category", "boolean", "datetime", "text"])
def test_values_of_any_type_are_compared_or_missing(kind: FeatureKind, values: list[object]) -> None:
    for column in (pd.Series(values), pd.Series(values, dtype=object)):
        assert len(to_comparable(pd.DataFrame({"c": column}), {"c": kind}, TIMES).rows) == 2


def test_typed_column_and_archived_text_are_equal() -> None:
    typed = pd.DataFrame({"at": pd.to_datetime(["2026-01-01", "2026-01-02"]), "flag": [True, False]})
    archived = pd.DataFrame({"at": ["2026-01-01T00:00:00", "2026-01-02T00:00:00Z"], "flag": [True, False]})
    kinds: dict[str, FeatureKind] = {"at": "datetime", "flag": "boolean"}
    pd.testing.assert_frame_equal(to_comparable(typed, kinds, TIMES).rows, to_comparable(archived, kinds, TIMES).rows)
