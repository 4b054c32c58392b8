"""Summary, annotation and exit code of a retrain."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.events import DataSelection, ModelStateChanged, RetrainRequest
from driftloop.retrain_report import RetrainReport, annotation, describe_selection, escape_markdown, workflow_command

REQUEST = RetrainRequest(reason="two | new *carriers*", requested_by="somebody", data=DataSelection(last_rows=50_000))
PROMOTED = ModelStateChanged(
    retrain_id="a/b",
    model="flights",
    version="3",
    state="promoted",
    explanation="a gain of +0.036 [+0.030, +0.042] at 95%",
    champion={"roc_auc": 0.7121, "rows": 14923.0},
    challenger={"roc_auc": 0.7484, "gain": 0.0363, "gain_low": 0.03, "gain_high": 0.0425, "rows": 14923.0},
    trained_through=datetime(2013, 7, 31, 23, 59, tzinfo=UTC),
    dataset_md5="0123abc",
)
SUMMARY = r"""## ✅ flights: promoted, version 3

a gain of +0.036 \[+0.030, +0.042\] at 95%

| | |
|---|---|
| reason | two \| new \*carriers\* |
| requested by | somebody |
| data | the last 50,000 labelled rows |
| retrain | `a/b` |
| version | 3 |
| dataset (MD5) | `0123abc` |
| trained through | 2013-07-31 23:59 UTC |
| see | [the version in MLflow](https://mlflow.example/#/models/flights/versions/3) |

| on the holdout | champion | challenger |
|---|---:|---:|
| ROC AUC | 0.7121 | 0.7484 |
| rows | 14,923 | 14,923 |
| gain |  | 0.0363 [0.03, 0.0425] |

"""


def final_state(name: str) -> ModelStateChanged:
    return ModelStateChanged.model_validate({"retrain_id": "a", "model": "flights", "state": name, "explanation": "so"})


def test_summary_has_metrics_data_version_and_link(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n\n")
    assert RetrainReport(REQUEST, file, mlflow_ui_url="https://mlflow.example/").write_result(PROMOTED) == 0
    assert file.read_text() == "before\n\n" + SUMMARY


@pytest.mark.parametrize(
    ("name", "code", "annotated", "line"),
    [
        ("promoted", 0, 0, "::notice title=✅ flights%3A promoted::so"),
        ("rejected", 3, 0, "::warning title=⚠️ flights%3A rejected::so"),
        ("failed", 4, 4, "::error title=❌ flights%3A failed::so"),
    ],
)
def test_rejection_has_exit_code_3_and_with_github_annotations_0(
    name: str, code: int, annotated: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RetrainReport(REQUEST).write_result(final_state(name)) == code
    assert capsys.readouterr().out == ""
    assert RetrainReport(REQUEST, github_annotations=True).write_result(final_state(name)) == annotated
    assert capsys.readouterr().out == line + "\n" == annotation(final_state(name)) + "\n"


def test_text_is_escaped_for_workflow_commands_and_markdown() -> None:
    assert (
        workflow_command("error", "a: b,\nc", "50%\n::add-mask::x")
        == "::error title=a%3A b%2C%0Ac::50%25%0A::add-mask::x"
    )
    assert escape_markdown("<b>x</b>\n# [y](z) `w`") == r"\<b\>x\</b\> \# \[y\](z) \`w\`"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataSelection(), "all"),
        (
            DataSelection(start=date(2013, 1, 1), base_end=date(2013, 4, 1), archive=False, last_rows=5000),
            "from 2013-01-01, base dataset until before 2013-04-01, the last 5,000 labelled rows, without the archive",
        ),
        (DataSelection(exclude_days=[date(2013, 7, 4), date(2013, 7, 5)]), "without 2013-07-04, 2013-07-05"),
    ],
)
def test_data_selection_is_described_in_words(data: DataSelection, words: str) -> None:
    assert describe_selection(data) == words


def test_retrain_request_rejects_days_that_leave_no_row() -> None:
    days = {"start": date(2013, 4, 1), "base_end": date(2013, 4, 1)}
    with pytest.raises(ValidationError, match="no day is between start 2013-04-01 and base_end 2013-04-01"):
        RetrainRequest(reason="why not", data=DataSelection(**days, archive=False))
    assert RetrainRequest(reason="the archive may have some", data=DataSelection(**days)).data.archive
