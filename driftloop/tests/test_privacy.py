"""Private values become keyed hashes that are the same everywhere, or nothing, before an event has them."""

import hmac
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.errors import InvalidInput
from driftloop.events import frame_to_columns
from driftloop.privacy import (
    ALL_KEPT,
    FeaturePolicy,
    Privacy,
    canonical_text,
    hash_key_id,
    hash_value,
    is_missing,
)
from driftloop.registry.recorded_privacy import describe_difference, privacy_tags

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.datetimes(datetime(1678, 1, 1), datetime(2261, 1, 1), timezones=st.just(UTC))
VALUES = NUMBERS | st.text() | st.booleans() | TIMES
PRIVACY = Privacy(
    {"email": "hash", "phone": "drop", "age": "keep"}, {"note": "drop", "agent": "hash"}, hashes_keys=True, hash_key=KEY
)


@given(VALUES)
def test_value_has_one_hash_of_128_bits_for_each_key(value: Any) -> None:
    hashed = hash_value(KEY, value)
    assert hashed == hash_value(KEY, value)
    assert hashed is not None
    assert len(bytes.fromhex(hashed)) == 16
    assert hashed != hash_value(OTHER_KEY, value)


@given(VALUES, VALUES)
def test_only_equal_values_of_one_type_share_a_canonical_text(first: Any, second: Any) -> None:
    def kind(value: Any) -> type:
        return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)

    are_same = kind(first) is kind(second) and first == second
    assert (canonical_text(first) == canonical_text(second)) is are_same


@given(st.integers(-(2**53), 2**53))
def test_whole_number_is_the_same_in_a_column_that_a_missing_value_has_widened(number: int) -> None:
    column = pd.Series([number, None])
    assert column.dtype == "float64"
    assert hash_value(KEY, column[0]) == hash_value(KEY, number) == hash_value(KEY, np.int64(number))


@given(TIMES, st.integers(-14 * 60, 14 * 60))
def test_time_is_the_same_in_every_zone_and_in_pandas(time: datetime, minutes: int) -> None:
    elsewhere = time.astimezone(timezone(timedelta(minutes=minutes)))
    hashes = {hash_value(KEY, each) for each in (time, elsewhere, time.replace(tzinfo=None), pd.Timestamp(time))}
    assert len(hashes) == 1


def test_values_of_different_types_are_different() -> None:
    values = [1, "1", True, "true", "number:1", datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01"]
    assert len({hash_value(KEY, value) for value in values}) == len(values)
    assert hash_value(KEY, date(1970, 1, 1)) == hash_value(KEY, datetime(1970, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("value", [None, float("nan"), np.float64("nan"), pd.NA, pd.NaT])
def test_missing_value_stays_missing(value: Any) -> None:
    assert is_missing(value)
    assert hash_value(KEY, value) is None


def test_value_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="a value of the type list"):
        hash_value(KEY, [1])


def test_hash_is_that_of_any_implementation_of_hmac() -> None:
    """Other programs can compute the hash of a key, to look a row up."""
    assert hash_value(KEY, "order-17") == hmac.new(KEY, b"text:order-17", "sha256").hexdigest()[:32]


def test_features_context_and_keys_are_treated_by_column() -> None:
    columns: dict[str, list[Any]] = {"email": ["a@x", None], "phone": ["1", "2"], "age": [3, 4], "zip": ["7", "8"]}
    assert PRIVACY.treat_features(columns) == {
        "email": [hash_value(KEY, "a@x"), None],
        "age": [3, 4],
        "zip": ["7", "8"],
    }
    context: dict[str, list[Any]] = {
        "note": ["n", "m"],
        "agent": ["Bo", None],
        "phone": ["1", "2"],
        "email": ["a@x", "b@x"],
        "rest": [1, 2],
    }
    assert PRIVACY.treat_context(context) == {
        "agent": [hash_value(KEY, "Bo"), None],
        "email": [hash_value(KEY, "a@x"), hash_value(KEY, "b@x")],
        "rest": [1, 2],
    }
    assert PRIVACY.treat_context({"note": ["n"]}) is None
    assert PRIVACY.treat_keys(["order-17", None]) == [hash_value(KEY, "order-17"), None]
    assert Privacy().treat_keys(["order-17", None]) == ["order-17", None]


def test_frame_is_treated_as_its_rows_are_in_events() -> None:
    frame = pd.DataFrame({"email": ["a@x", None], "phone": [1, 2], "age": [3.5, None]}, index=[5, 6])
    treated = PRIVACY.treat_frame(frame)
    assert frame_to_columns(treated) == PRIVACY.treat_features(frame_to_columns(frame))
    assert list(treated.index) == [5, 6]
    assert list(frame.columns) == ["email", "phone", "age"]


def test_frame_whose_columns_are_numbers_is_treated_by_their_names() -> None:
    privacy = Privacy({"0": "hash", "1": "drop"}, hash_key=KEY)
    treated = privacy.treat_frame(pd.DataFrame([[1, 2, 3]]))
    assert [*map(str, treated.columns)] == ["0", "2"]
    assert treated[0].tolist() == [hash_value(KEY, 1)]


def test_hashed_feature_is_compared_as_a_category() -> None:
    kinds = PRIVACY.treat_kinds({"email": "text", "phone": "number", "age": "number"})
    assert kinds == {"email": "category", "age": "number"}


def test_misspelt_feature_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"PRIVACY__FEATURES names the feature email, .* did you mean e_mail"):
        PRIVACY.require_features(["e_mail", "phone", "age"], "version 3")
    PRIVACY.require_features(["email", "phone", "age", "zip"], "version 3")


def test_exception_is_quoted_unless_features_are_private() -> None:
    error = ValueError("could not convert string to float: 'a@x'")
    assert Privacy().describe_error(error).endswith("'a@x'")
    assert "a@x" not in PRIVACY.describe_error(error)
    assert "ValueError" in PRIVACY.describe_error(error)


def test_secret_is_in_no_representation() -> None:
    assert KEY.decode() not in repr(PRIVACY)
    assert KEY.decode() not in PRIVACY.feature_policy.model_dump_json()
    assert KEY.hex() not in PRIVACY.feature_policy.model_dump_json()


def test_policies_differ_by_column_and_by_key() -> None:
    reference = FeaturePolicy(features={"email": "hash", "zip": "drop"}, hash_key_id=hash_key_id(OTHER_KEY))
    assert PRIVACY.feature_policy.differences(reference) == {
        "email": "hashed in the reference by another key than DRIFTLOOP_PRIVACY__HASH_KEY",
        "phone": "kept in the reference, dropped by DRIFTLOOP_PRIVACY__FEATURES",
        "zip": "dropped in the reference, kept by DRIFTLOOP_PRIVACY__FEATURES",
    }
    assert PRIVACY.feature_policy.differences(PRIVACY.feature_policy) == {}
    unknown_key = reference.model_copy(update={"hash_key_id": None})
    assert unknown_key.differences(reference) == {}


def test_version_has_a_record_of_the_policy_and_the_key() -> None:
    policy = PRIVACY.feature_policy
    tags = privacy_tags(policy)
    assert describe_difference(tags, policy) is None
    assert describe_difference({}, ALL_KEPT) is None
    assert privacy_tags(ALL_KEPT) == {}
    assert "without private features" in (describe_difference({}, policy) or "")
    assert "other treatments" in (describe_difference(tags, ALL_KEPT) or "")
    other = Privacy(PRIVACY.features, hash_key=OTHER_KEY).feature_policy
    assert "HASH_KEY" in (describe_difference(tags, other) or "")
    assert not any(KEY.decode() in tag or "email" in tag for tag in tags.values())
