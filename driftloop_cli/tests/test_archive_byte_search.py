from hypothesis import given
from hypothesis import strategies as st

from driftloop_cli.archive.byte_search import MAX_SINGLE_VALUES, value_finder

MANY = MAX_SINGLE_VALUES + 1
values = st.lists(st.binary(min_size=1, max_size=3), min_size=MANY, max_size=2 * MANY)


@given(values, st.lists(st.integers(0, 2), max_size=12).map(bytes))
def test_many_values_are_found_where_one_of_them_is(values: list[bytes], content: bytes) -> None:
    assert value_finder(values)(content) == any(value in content for value in values)


def test_value_is_found_at_either_end_and_a_prefix_alone_is_not() -> None:
    has_value = value_finder([b"customer-%06d" % number for number in range(MANY)])
    assert has_value(b"customer-000000")
    assert has_value(b"...customer-000050")
    assert has_value(b"customer-000007...")
    assert not has_value(b"customer-00000")
    assert not has_value(b"")
