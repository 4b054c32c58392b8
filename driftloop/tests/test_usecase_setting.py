"""The setting that names a use case: where its module is looked for, and what is wrong with a value."""

import sys
from pathlib import Path

import pytest

from driftloop.settings import InvalidSettings, load_settings
from driftloop.usecase_setting import EXPECTED, load_use_case
from producer.settings import ProducerSettings
from usecases.flights import usecase as flights


def test_use_case_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_usecase.py").write_text("from usecases.flights import usecase as mine\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "outside_usecase:mine")
    try:
        assert load_settings(ProducerSettings).use_case is flights
    finally:
        sys.modules.pop("outside_usecase", None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("usecases/loans", ["'usecases/loans' names no use case"]),
        ("usecases.flights", ["'usecases.flights' names no use case"]),
        ("nowhere_at_all:usecase", ["no module nowhere_at_all", "current folder"]),
        ("usecases.nowhere:usecase", ["no module usecases.nowhere"]),
        ("usecases.flights:use_case", ["usecases.flights has no use_case", "its use cases are usecase"]),
        ("usecases.flights.dataset:PARQUET", ["has a PARQUET that is a PosixPath"]),
    ],
    ids=["a path", "no name", "no module", "no submodule", "no such name", "another object"],
)
def test_wrong_value_is_named_with_what_is_expected(
    value: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(ProducerSettings)
    message = str(error.value)
    assert message.startswith("DRIFTLOOP_USE_CASE: ")
    assert not [word for word in (*words, EXPECTED) if word not in message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import package_that_is_nowhere\n", "broken_usecase imports package_that_is_nowhere, which is not installed"),
        ("1 / 0\n", "broken_usecase cannot be imported: ZeroDivisionError: division by zero"),
    ],
    ids=["missing package", "error"],
)
def test_module_that_cannot_be_imported_is_named_with_the_cause(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_usecase.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        load_use_case("broken_usecase:usecase")
