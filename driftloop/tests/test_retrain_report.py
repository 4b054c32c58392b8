"""What a retrain's end looks like on the page of a GitHub run."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.events import DataSelection, ModelChange, Wish
from driftloop.retrain_report import Report, annotation, command, plain, selected

WISH = Wish(reason="two | new *carriers*", asked_by="somebody", data=DataSelection(last_rows=50_000))
PROMOTED = ModelChange(
    retrain_id="a/b",
    model="flights",
    version="3",
    state="promoted",
    why="a gain of +0.036 [+0.030, +0.042] at 95%",
    champion={"roc_auc": 0.7121, "rows": 14923.0},
    challenger={"roc_auc": 0.7484, "gain": 0.0363, "gain_low": 0.03, "gain_high": 0.0425, "rows": 14923.0},
    learned_until=datetime(2013, 7, 31, 23, 59, tzinfo=UTC),
    dataset="0123abc",
)
PAGE = r"""## ✅ flights: promoted, version 3

a gain of +0.036 \[+0.030, +0.042\] at 95%

| | |
|---|---|
| reason | two \| new \*carriers\* |
| asked by | somebody |
| data | the last 50,000 labelled rows |
| retrain | `a/b` |
| version | 3 |
| dataset version (md5) | `0123abc` |
| has learned up to | 2013-07-31 23:59 UTC |
| see | [the version in MLflow](https://mlflow.example/#/models/flights/versions/3) |

| on the held-out rows | champion | challenger |
|---|---:|---:|
| ROC AUC | 0.7121 | 0.7484 |
| rows | 14,923 | 14,923 |
| gain |  | 0.0363 [0.03, 0.0425] |

"""


def state(name: str) -> ModelChange:
    return ModelChange.model_validate({"retrain_id": "a", "model": "flights", "state": name, "why": "so"})


def test_the_page_has_figures_data_version_and_link(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n\n")
    assert Report(WISH, file, mlflow="https://mlflow.example/").ended(PROMOTED) == 0
    assert file.read_text() == "before\n\n" + PAGE


@pytest.mark.parametrize(
    ("name", "code", "annotated", "line"),
    [
        ("promoted", 0, 0, "::notice title=✅ flights%3A promoted::so"),
        ("rejected", 3, 0, "::warning title=⚠️ flights%3A rejected::so"),
        ("failed", 4, 4, "::error title=❌ flights%3A failed::so"),
    ],
)
def test_only_to_github_is_a_rejection_no_error(
    name: str, code: int, annotated: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Report(WISH).ended(state(name)) == code
    assert capsys.readouterr().out == ""
    assert Report(WISH, annotates=True).ended(state(name)) == annotated
    assert capsys.readouterr().out == line + "\n" == annotation(state(name)) + "\n"


def test_what_people_write_is_no_command_and_no_format() -> None:
    assert command("error", "a: b,\nc", "50%\n::add-mask::x") == "::error title=a%3A b%2C%0Ac::50%25%0A::add-mask::x"
    assert plain("<b>x</b>\n# [y](z) `w`") == r"\<b\>x\</b\> \# \[y\](z) \`w\`"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataSelection(), "all"),
        (
            DataSelection(start=date(2013, 1, 1), end=date(2013, 4, 1), archive=False, last_rows=5000),
            "from 2013-01-01, the base dataset to before 2013-04-01, the last 5,000 labelled rows, without the archive",
        ),
        (DataSelection(without_days=[date(2013, 7, 4), date(2013, 7, 5)]), "without 2013-07-04, 2013-07-05"),
    ],
)
def test_a_selection_in_words(data: DataSelection, words: str) -> None:
    assert selected(data) == words


def test_days_that_leave_no_row_are_no_wish() -> None:
    days = {"start": date(2013, 4, 1), "end": date(2013, 1, 1)}
    with pytest.raises(ValidationError, match="no day lies from 2013-04-01 to before 2013-01-01"):
        Wish(reason="why not", data=DataSelection(**days, archive=False))
    assert Wish(reason="the archive may have some", data=DataSelection(**days)).data.archive
