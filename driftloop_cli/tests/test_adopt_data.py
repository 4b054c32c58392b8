"""Rows that a model is adopted with: how they are read, ordered and understood."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from driftloop_cli.adopt.data import InvalidRows, as_served, infer_kinds, read_rows
from driftloop_cli.adopt.estimator import answer, choose_features, choose_method, compare
from driftloop_cli.adopt.isolation import bare_environment

FRAME = pd.DataFrame({"at": ["2013-01-02", "2013-01-01", "2013-01-03"], "x": [1.0, 2.0, 3.0], "y": [0, 1, 0]})


@pytest.fixture(params=["csv", "parquet"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"rows.{request.param}"
    FRAME.to_csv(path, index=False) if request.param == "csv" else FRAME.to_parquet(path)
    return path


def test_rows_are_put_into_the_order_of_time(file: Path) -> None:
    rows = read_rows(file, "y", "at", "America/New_York")
    assert list(rows.frame) == ["x"]
    assert rows.frame["x"].tolist() == [2.0, 1.0, 3.0]
    assert rows.times is not None
    assert rows.times.iloc[0] == pd.Timestamp("2013-01-01T05:00Z")
    assert rows.target is not None
    assert rows.target.tolist() == [1, 0, 0]


def test_rows_without_a_time_are_shuffled_always_alike(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"x": np.arange(100)}).to_parquet(path)
    first, second = (read_rows(path, None, None, "UTC").frame["x"].tolist() for _ in range(2))
    assert first == second
    assert first != sorted(first)
    assert sorted(first) == list(range(100))


@pytest.mark.parametrize(
    ("target", "time", "problem"), [("z", None, "--target"), (None, "z", "--time")], ids=["target", "time"]
)
def test_missing_column_is_named_with_its_option(
    file: Path, target: str | None, time: str | None, problem: str
) -> None:
    with pytest.raises(InvalidRows, match=f"{problem}.*no column z.*at, x, y"):
        read_rows(file, target, time, "UTC")


@pytest.mark.parametrize(
    ("texts", "hours"),
    [
        (["2013-03-31T00:00+01:00", "2013-03-31T12:00+02:00"], [23, 10]),
        (["2013-03-31T00:00", "2013-03-31T12:00"], [23, 10]),
        (["2013-03-31T00:00Z", "2013-03-31T12:00Z"], [0, 12]),
    ],
    ids=["offsets", "local", "UTC"],
)
def test_times_are_read_with_their_zone_or_in_that_of_the_option(
    texts: list[str], hours: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame({"at": texts, "x": [1, 2]}).to_csv(path, index=False)
    times = read_rows(path, None, "at", "Europe/Berlin").times
    assert times is not None
    assert times.dt.hour.tolist() == hours


def test_times_that_cannot_be_read_are_shown_with_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pd.DataFrame({"at": ["2013-01-01", "yesterday", None], "x": [1, 2, 3]}).to_csv(path, index=False)
    with pytest.raises(InvalidRows, match=r"2 times in at cannot be read.*row 1: 'yesterday'"):
        read_rows(path, None, "at", "UTC")


def test_features_whose_names_differ_in_case_only_are_refused() -> None:
    with pytest.raises(InvalidRows, match="Age and age: train it with other names"):
        infer_kinds(pd.DataFrame({"Age": [1.0], "age": [2.0]}))


@pytest.mark.parametrize(("name", "content"), [("rows.parquet", b"no"), ("rows.xlsx", b""), ("rows.csv", b"")])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRows, match=name):
        read_rows(tmp_path / name, None, None, "UTC")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pd.Series(["a", None], dtype="category"), "object"),
        (pd.Series(["a", None], dtype="string"), "object"),
        (pd.Series([1, None], dtype="Int64"), "float64"),
        (pd.Series([1, 2], dtype="Int64"), "int64"),
        (pd.Series([True, None], dtype="boolean"), "object"),
        (pd.Series([True, False], dtype="boolean"), "bool"),
        (pd.Series(pd.to_datetime(["2013-01-01T00:00+01:00"])), "datetime64[ns]"),
        (pd.Series([1.5], dtype="float32"), "float32"),
    ],
    ids=["category", "string", "Int64 with gap", "Int64", "boolean with gap", "boolean", "zoned time", "float32"],
)
def test_columns_get_the_dtypes_of_requests(values: pd.Series, dtype: str) -> None:
    assert str(as_served(pd.DataFrame({"x": values}))["x"].dtype) == dtype


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], "number"),
        ([True, False, True], "boolean"),
        ([True, None, False], "boolean"),
        (["a", "b", None], "category"),
        (pd.to_datetime(["2013-01-01"] * 3), "datetime"),
    ],
    ids=["numbers", "booleans", "booleans with gap", "texts", "times"],
)
def test_kinds_are_inferred(values: Any, kind: str) -> None:
    assert infer_kinds(pd.DataFrame({"x": values})) == {"x": kind}


def test_many_distinct_texts_are_text_and_codes_are_categories_if_named() -> None:
    frame = pd.DataFrame({"note": [f"note {n}" for n in range(1000)], "code": np.arange(1000) % 7})
    assert infer_kinds(frame, ["code"]) == {"note": "text", "code": "category"}


@pytest.mark.parametrize(
    ("frame", "categories", "named"),
    [
        (pd.DataFrame({"x": ["a", 1]}), (), "x"),
        (pd.DataFrame({"_id": [1]}), (), "_id"),
        (pd.DataFrame({"x": [1]}), ("z",), "z"),
    ],
    ids=["mixed types", "reserved name", "unknown category"],
)
def test_columns_that_cannot_be_used_are_named(frame: pd.DataFrame, categories: tuple[str, ...], named: str) -> None:
    with pytest.raises(InvalidRows, match=named):
        infer_kinds(frame, categories)


def test_features_are_those_of_the_signature_or_of_the_estimator_or_all() -> None:
    by_name = LogisticRegression().fit(pd.DataFrame({"b": [0, 1], "a": [1, 0]}), [0, 1])
    by_position = LogisticRegression().fit(np.eye(2), [0, 1])
    assert choose_features(["a"], by_name, ["a", "b", "c"]) == ["a"]
    assert choose_features(None, by_name, ["a", "b", "c"]) == ["b", "a"]
    assert choose_features(None, by_position, ["a", "b"]) == ["a", "b"]
    with pytest.raises(InvalidRows, match=r"matrix of 2 columns.*a, b, c"):
        choose_features(None, by_position, ["a", "b", "c"])
    with pytest.raises(InvalidRows, match="model takes: a"):
        choose_features(None, by_name, ["b"])


def test_probabilities_are_preferred_and_other_methods_are_refused() -> None:
    assert choose_method(LogisticRegression(), None) == "predict_proba"
    assert choose_method(LogisticRegression(), "predict") == "predict"
    with pytest.raises(InvalidRows, match="no method predict_proba"):
        choose_method(object(), "predict_proba")


def test_missing_texts_are_what_the_encoder_was_fitted_with() -> None:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OneHotEncoder  # noqa: PLC0415

    for missing in (None, np.nan):
        rows = pd.DataFrame({"x": np.array(["a", missing] * 10, dtype=object)})
        model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(rows, [0, 1] * 10)
        unseen: Any = np.nan if missing is None else None
        other = rows.where(rows.notna(), unseen)
        assert answer(model, None, other, None).values.tolist() == model.predict_proba(rows).tolist()


@pytest.mark.parametrize(
    ("first", "second", "different"),
    [
        ([0.1, 0.2], [0.1, 0.2], 0),
        ([0.1, 0.2], [0.1, 0.2 + 1e-13], 0),
        ([[0.1, 0.9], [0.2, 0.8]], [[0.1, 0.9], [0.3, 0.7]], 1),
        ([np.nan, 1.0], [np.nan, 1.0], 0),
        (["a", "b"], ["a", "c"], 1),
        ([1, 2], [1.0, 2.0], 0),
        ([1, 2, 3], [1, 2], 2),
    ],
    ids=["same", "rounding", "probabilities", "missing", "labels", "types", "rows"],
)
def test_answers_are_compared_row_by_row(first: list[Any], second: list[Any], different: int) -> None:
    assert compare(np.array(first), np.array(second)).different_rows == different


def test_environment_of_a_conversion_has_no_setting_and_no_credential() -> None:
    environment = {"PATH": "/bin", "DRIFTLOOP_REGISTRY__URI": "http://user:secret@host", "AWS_SECRET_ACCESS_KEY": "s"}
    bare = bare_environment(Path("/empty"), environment)
    assert bare["PATH"] == "/bin"
    assert bare["HOME"] == "/empty"
    assert not {name for name in bare if name.startswith(("DRIFTLOOP", "AWS", "GOOGLE", "MLFLOW"))}
