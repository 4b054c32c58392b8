"""Transformers of datetimes and texts: what they derive, also from missing values, and that models with them load."""

import numpy as np
import pandas as pd
import pytest
import skops.io

from driftloop.features import DatetimeFeatures, TextColumn
from driftloop.registry.file_contents import require_harmless
from driftloop.registry.trusted_types import TRUSTED_TYPES

TIMES = pd.Series([pd.Timestamp("2026-03-01 06:00"), pd.NaT, pd.Timestamp("2026-02-27 18:00")])


@pytest.mark.parametrize(
    "times",
    [TIMES, TIMES.dt.tz_localize("UTC"), TIMES.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"), TIMES.astype(object)],
    ids=["naive", "utc", "tokyo", "objects"],
)
def test_datetimes_become_numbers_in_utc(times: pd.Series) -> None:
    derived = DatetimeFeatures().fit_transform(pd.DataFrame({"signed": times}))
    expected = [[3, 6, 6, 1.5], [np.nan] * 4, [2, 4, 18, 0]]
    np.testing.assert_array_equal(derived, expected)


def test_days_count_from_the_earliest_datetime_of_the_fit() -> None:
    fitted = DatetimeFeatures().fit(pd.DataFrame({"a": TIMES, "b": TIMES + pd.Timedelta(days=1)}))
    later = pd.DataFrame({"a": TIMES + pd.Timedelta(days=10), "b": TIMES + pd.Timedelta(days=10)})
    names = list(fitted.get_feature_names_out())
    assert names[:4] == ["a_month", "a_day_of_week", "a_hour", "a_days"]
    assert fitted.transform(later)[0][[names.index("a_days"), names.index("b_days")]].tolist() == [11.5, 10.5]


def test_column_without_any_datetime_becomes_missing_numbers() -> None:
    frame = pd.DataFrame({"signed": pd.Series([None, None], dtype="datetime64[ns]")})
    assert np.isnan(DatetimeFeatures().fit_transform(frame)).all()


def test_missing_texts_become_empty_ones() -> None:
    frame = pd.DataFrame({"text": ["so late", None, float("nan")]})
    assert TextColumn().fit_transform(frame).tolist() == ["so late", "", ""]


def test_models_with_both_load_with_the_types_trusted_by_default() -> None:
    frame = pd.DataFrame({"signed": TIMES, "text": ["a", None, "b"]})
    for transformer, columns in ((DatetimeFeatures(), ["signed"]), (TextColumn(), ["text"])):
        fitted = transformer.fit(frame[columns])
        loaded = skops.io.loads(skops.io.dumps(fitted), trusted=list(TRUSTED_TYPES))
        require_harmless(loaded)
        np.testing.assert_array_equal(loaded.transform(frame[columns]), fitted.transform(frame[columns]))
