"""``driftloop new``: what it prints and refuses, and that what it writes trains, predicts and passes its own test."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from mlflow.models import infer_signature
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner, Result

from driftloop.exit_codes import ExitCode
from driftloop.registry.file_contents import require_harmless
from driftloop.registry.trusted_types import TRUSTED_TYPES
from driftloop.usecase import UseCase
from driftloop_cli.main import app

ROOT = Path(__file__).resolve().parents[3]
ROWS = 1_500
CHOICES = np.arange(ROWS)
WORDS = ("house", "car", "roof", "repair", "holiday", "kids", "boat", "trip")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, from which Python imports what is written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "written"]:
        del sys.modules[name]


def new(file: str, *options: str, name: str = "loans", target: str = "repaid", time: str = "at") -> Result:
    arguments = ["new", name, "--from", file, "--target", target, "--time", time, "--into", "written", *options]
    return CliRunner().invoke(app, arguments)


def loans() -> pd.DataFrame:
    """Return rows of two named classes, with a column of each kind and each reason to leave one out."""
    random = np.random.default_rng(0)
    amount = random.gamma(2, 500, ROWS).round(2)
    repaid = np.where(random.random(ROWS) < 1 / (1 + amount / 800), "yes", "no")
    return pd.DataFrame(
        {
            "loan": np.arange(ROWS) + 1_000,
            "at": pd.date_range("2026-01-01", periods=ROWS, freq="97min").strftime("%Y-%m-%d %H:%M"),
            "amount": amount,
            "age": random.integers(18, 80, ROWS),
            "region code": random.choice([101, 205, 999], ROWS),
            "city": random.choice(["Köln", "Łódź", "Bern"], ROWS),
            "employed": random.random(ROWS) < 0.5,
            "born": pd.Series(pd.Timestamp("1980-01-01") + pd.to_timedelta(random.integers(0, 9_000, ROWS), unit="D"))
            .dt.strftime("%d.%m.%Y")
            .mask(random.random(ROWS) < 0.1),
            "purpose": [" ".join(random.choice(WORDS, 6)) for _ in range(ROWS)],
            "currency": "EUR",
            "paid_back": np.where(repaid == "yes", amount, 0.0),
            "repaid": repaid,
        }
    )


def rentals() -> pd.DataFrame:
    """Return rows of a regression."""
    random = np.random.default_rng(1)
    hour, temperature = np.arange(ROWS) % 24, random.normal(15, 8, ROWS)
    return pd.DataFrame(
        {
            "at": pd.date_range("2026-01-01", periods=ROWS, freq="h", tz="UTC"),
            "hour": hour,
            "temperature": temperature,
            "rented": 100 + 60 * np.sin(hour / 24 * 2 * np.pi) + 3 * temperature + random.normal(0, 10, ROWS),
        }
    )


def tickets() -> pd.DataFrame:
    """Return rows of three classes, integers, with missing values everywhere but in the times."""
    random = np.random.default_rng(2)
    length = random.gamma(2, 100, ROWS)
    frame = pd.DataFrame(
        {
            "length": length,
            "team": random.choice(["a", "b", "c"], ROWS),
            "urgent": random.random(ROWS) < 0.3,
            "answered": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 9_000, ROWS), unit="h"),
            "level": (length // 150).clip(0, 2) + (random.random(ROWS) < 0.3),
        }
    )
    missing = frame.astype(object).mask(random.random(frame.shape) < 0.1)
    return missing.assign(at=pd.date_range("2026-03-01", periods=ROWS, freq="53min"))


TABLES: dict[str, tuple[Callable[[], pd.DataFrame], list[str], dict[str, Any]]] = {
    "loans": (
        loans,
        ["--id", "loan", "--metric", "average_precision"],
        {
            "target": "repaid",
            "classes": ("no", "yes"),
            "metric": "average_precision",
            "timezone": "UTC",
            "feature_kinds": {
                "amount": "number",
                "age": "number",
                "region code": "category",
                "city": "category",
                "employed": "boolean",
                "born": "datetime",
                "purpose": "text",
            },
        },
    ),
    "rentals": (
        rentals,
        ["--target", "rented"],
        {
            "target": "rented",
            "classes": None,
            "metric": "neg_root_mean_squared_error",
            "feature_kinds": {"hour": "number", "temperature": "number"},
        },
    ),
    "tickets": (
        tickets,
        ["--target", "level", "--timezone", "America/New_York"],
        {
            "target": "level",
            "classes": (0, 1, 2, 3),
            "metric": "roc_auc_ovr",
            "timezone": "America/New_York",
            "feature_kinds": {"length": "number", "team": "category", "urgent": "boolean", "answered": "datetime"},
        },
    ),
}


def written_use_case(name: str) -> UseCase:
    use_case: UseCase = import_module(f"written.{name}").usecase
    return use_case


@pytest.fixture(params=TABLES)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a use case that was written for one of the tables."""
    make, options, _ = TABLES[request.param]
    make().to_csv(tmp_path / "table.csv", index=False)
    result = new("table.csv", *options, name=request.param)
    assert result.exit_code == ExitCode.SUCCESS, result.output
    return str(request.param)


@pytest.mark.integration
def test_written_use_case_trains_and_predicts_and_its_model_loads_by_default(written: str) -> None:
    use_case = written_use_case(written)
    expected = TABLES[written][2]
    assert {name: getattr(use_case, name) for name in expected} == expected
    rows = use_case.load_rows()
    assert rows[use_case.timestamp].is_monotonic_increasing
    assert len(rows) == ROWS
    labelled = rows[rows[use_case.target].notna()].iloc[::2]
    features = labelled[use_case.features]
    with threadpool_limits(1):
        model = use_case.make_pipeline().fit(features, use_case.target_type.decode(use_case.outcomes(labelled)))
        loaded = skops.io.loads(skops.io.dumps(model), trusted=list(TRUSTED_TYPES))
        require_harmless(loaded)
        # As they are served: rows one at a time, levels that are new, and everything missing that may be.
        first = features.head(1)
        unknown = first.assign(
            **{n: "new" for n, kind in use_case.feature_kinds.items() if kind in ("category", "text")}
        )
        for frame in (first, unknown, features.tail(50), first.mask(features.head(1).notna())):
            np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
    assert infer_signature(features).inputs.input_names() == use_case.features
    method = "predict_proba" if use_case.classes else "predict"
    predictions = use_case.target_type.predict(model, method, features)
    values = use_case.headline_metric.compute(use_case.outcomes(labelled), predictions)
    assert np.isfinite(values)


@pytest.mark.integration
def test_written_test_passes_and_is_formatted(written: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    folder = f"written/{written}"
    config = ["--config", str(ROOT / "pyproject.toml"), "--config", f'src=["{ROOT}", "{tmp_path}"]']
    for command in (
        ["pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", folder],
        ["ruff", "check", *config, folder],
        ["ruff", "format", "--check", *config, folder],
    ):
        ended = subprocess.run(
            [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_choices_are_printed_and_written_as_lines_to_edit(tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "table.csv", index=False)
    result = new("table.csv")
    assert result.exit_code == ExitCode.SUCCESS, result.output
    lines = (tmp_path / "written/loans/usecase.py").read_text().splitlines()
    assert '    "age": "number",' in lines
    left_out = {line.split('"')[1] for line in lines if line.lstrip().startswith('# "')}
    assert left_out == {"loan", "currency", "paid_back"}
    for column in map(str, loans().columns):
        assert column.split()[0] in result.output
    readme = (tmp_path / "written/loans/README.md").read_text()
    assert "make up USE_CASE=written.loans:usecase" in readme
    assert (tmp_path / "written/loans/.gitignore").read_text().splitlines()[-1] == "/loans.parquet"


def requests_of(readme: str) -> dict[str, tuple[datetime, dict[str, Any]]]:
    """Return the time in the header and the body of each request of curl in a README, by its path."""
    pattern = r"localhost:8000/(\w+) .*?Driftloop-Time: (\S+)'.*?-d '(.*?)'\n"
    found = re.findall(pattern, readme, flags=re.DOTALL)
    return {path: (datetime.fromisoformat(time), json.loads(body)) for path, time, body in found}


def test_example_is_a_row_with_its_own_key_time_and_outcome(tmp_path: Path) -> None:
    table = loans().assign(age=lambda rows: rows["age"].mask(rows.index % 3 == 0))  # integers with gaps
    table.to_csv(tmp_path / "table.csv", index=False)
    assert new("table.csv", "--id", "loan", "--timezone", "Europe/Berlin").exit_code == ExitCode.SUCCESS
    readme = (tmp_path / "written/loans/README.md").read_text()
    requests = requests_of(readme)
    at, prediction = requests["predict"]
    known_at, outcomes = requests["outcomes"]
    (key,) = prediction["keys"]
    row = table.set_index("loan").loc[int(key)]
    assert at == pd.Timestamp(str(row["at"]), tz="Europe/Berlin")
    assert (known_at - at).days == 1
    assert outcomes == {"outcomes": [{"key": key, "outcome": row["repaid"]}]}
    (instance,) = prediction["instances"]
    assert (instance["amount"], instance["city"], instance["purpose"]) == (row["amount"], row["city"], row["purpose"])
    assert (instance["age"], type(instance["age"])) == (row["age"], int)
    assert at.date() == written_use_case("loans").first_version.base_end
    assert "outcomes load FILE --key loan --outcome repaid" in readme


def test_example_without_an_id_is_named_by_the_answer(tmp_path: Path) -> None:
    rentals().to_csv(tmp_path / "table.csv", index=False)
    assert new("table.csv", "--target", "rented").exit_code == ExitCode.SUCCESS
    requests = requests_of((tmp_path / "written/loans/README.md").read_text())
    assert set(requests["predict"][1]) == {"instances"}
    (outcome,) = requests["outcomes"][1]["outcomes"]
    (rented,) = rentals().loc[rentals()["at"] == requests["predict"][0], "rented"]
    assert (outcome["index"], outcome["outcome"]) == (0, pytest.approx(rented))


def test_examples_are_cut_at_words_with_an_ellipsis(tmp_path: Path) -> None:
    table = loans().assign(city=[f"{'x' * 45}{row % 3}" for row in CHOICES])
    table.to_csv(tmp_path / "table.csv", index=False)
    lines = new("table.csv").stdout.splitlines()
    cells = {line.split("│")[1].strip(): line.split("│")[4].strip() for line in lines if line.startswith("│")}
    first = str(table["purpose"][0])
    assert cells["purpose"].endswith(" …")
    assert f"{first}, ".startswith(cells["purpose"].removesuffix("…"))
    assert cells["city"] == "x" * 39 + "…"


def test_choices_are_printed_as_json(tmp_path: Path) -> None:
    loans().to_parquet(tmp_path / "table.parquet")
    printed = json.loads(new("table.parquet", "--json").stdout)
    assert printed["use_case"] == "written.loans:usecase"
    assert printed["rows"] == ROWS
    reasons = {column["column"]: column["left_out"] for column in printed["columns"] if column["left_out"]}
    assert reasons == {"loan": "identifier", "currency": "constant", "paid_back": "leak"}


def test_use_case_is_overwritten_only_if_forced(tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "table.csv", index=False)
    assert new("table.csv").exit_code == ExitCode.SUCCESS
    edited = tmp_path / "written/loans/usecase.py"
    edited.write_text("# mine\n")
    (tmp_path / "table.csv").write_text("not read")
    refused = new("table.csv")
    assert (refused.exit_code, "--force" in refused.output) == (ExitCode.REFUSED, True)
    loans().to_csv(tmp_path / "table.csv", index=False)
    assert edited.read_text() == "# mine\n"
    assert new("table.csv", "--force").exit_code == ExitCode.SUCCESS
    assert edited.read_text() != "# mine\n"


def test_switched_kind_trains(tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "table.csv", index=False)
    assert new("table.csv").exit_code == ExitCode.SUCCESS
    file = tmp_path / "written/loans/usecase.py"
    text = file.read_text().replace('"age": "number"', '"age": "category"').replace('# "currency"', '"currency"')
    file.write_text(text)
    use_case = written_use_case("loans")
    rows = use_case.load_rows().head(200)
    with threadpool_limits(1):
        use_case.make_pipeline().fit(rows[use_case.features], rows[use_case.target])
    assert use_case.feature_kinds["age"] == use_case.feature_kinds["currency"] == "category"


def changed(**columns: Any) -> pd.DataFrame:
    return loans().assign(**columns)


# What is odd: the table, options, and a part of the sentence that names it.
REFUSALS: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any], str]] = {
    "no such target": (loans, {"target": "repayed"}, "did you mean repaid?"),
    "no such time": (loans, {"time": "xyzzy"}, "amount, age"),
    "no such id": (loans, {"options": ["--id", "lone"]}, "did you mean loan"),
    "target is the time": (loans, {"target": "at"}, "the same column"),
    "unreadable times": (lambda: changed(at=["soon", *loans()["at"][1:]]), {}, "row 1 ('soon')"),
    "unknown time zone": (loans, {"options": ["--timezone", "Europe/Berln"]}, "Europe/Berlin"),
    "ambiguous times": (
        lambda: changed(at=[f"0{1 + row % 9}/0{1 + row % 7}/2026 10:{row % 60:02}:00" for row in CHOICES]),
        {},
        "--time-format '%d/%m/%Y %H:%M:%S' or --time-format '%m/%d/%Y %H:%M:%S'",
    ),
    "bad time format": (lambda: changed(at="31.01.2026"), {"options": ["--time-format", "%d.%m"]}, "%d.%m"),
    "target with one value": (lambda: changed(repaid="yes"), {}, "repaid is 'yes'"),
    "target that is mostly missing": (lambda: changed(repaid=loans()["repaid"].where(CHOICES % 3 == 0)), {}, "missing"),
    "target of texts": (lambda: changed(repaid=[f"r{row}" for row in CHOICES]), {}, "1,500 different texts"),
    "target of datetimes": (lambda: changed(repaid=loans()["at"]), {}, "classes or numbers"),
    "wrong metric": (loans, {"options": ["--metric", "gini"]}, "balanced_accuracy"),
    "misspelt metric": (loans, {"options": ["--metric", "acuracy"]}, "did you mean accuracy"),
    "metric of another target": (rentals, {"target": "rented", "options": ["--metric", "roc_auc"]}, "neg_max_error"),
    "too few rows": (lambda: loans().head(150), {}, "200"),
    "no feature is left": (lambda: loans()[["at", "loan", "repaid"]], {}, "loan: "),
    "reserved name": (lambda: loans().rename(columns={"age": "_time"}), {}, "_time"),
    "duplicate names": (lambda: loans().rename(columns={"age": "amount"}), {}, "amount (3 and 4)"),
    "use case is no identifier": (loans, {"name": "my-loans"}, "my_loans"),
    "use case is a keyword": (loans, {"name": "class"}, "use_case_class"),
}


@pytest.mark.parametrize("odd", REFUSALS)
def test_odd_input_is_refused_in_a_sentence(odd: str, tmp_path: Path) -> None:
    make, arguments, named = REFUSALS[odd]
    make().to_csv(tmp_path / "table.csv", index=False)
    result = new("table.csv", *arguments.pop("options", []), **arguments)
    assert result.exit_code == ExitCode.REFUSED, result.output
    assert named in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "written").exists()


def test_missing_file_is_a_mistake_in_the_command(tmp_path: Path) -> None:
    assert new("nothing.csv").exit_code == ExitCode.USAGE
    assert not list(tmp_path.iterdir())


def test_folder_that_python_cannot_import_from_is_refused(tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "table.csv", index=False)
    assert new("table.csv", "--into", "my-cases").exit_code == ExitCode.REFUSED
    assert new("table.csv", "--into", str(tmp_path)).exit_code == ExitCode.REFUSED


def test_times_without_a_zone_are_said_to_be_taken_as_utc(tmp_path: Path) -> None:
    loans().to_csv(tmp_path / "table.csv", index=False)
    assert "UTC" in json.loads(new("table.csv", "--json").stdout)["time"]["reason"]


def test_names_that_are_no_identifiers_and_quotes_are_written(tmp_path: Path) -> None:
    names = {"age": 'the "age" (years)', "city": "Größe\\n", "repaid": 'is "it" `repaid`?'}
    loans().rename(columns=names).to_csv(tmp_path / "table.csv", index=False)
    result = new("table.csv", target=names["repaid"])
    assert result.exit_code == ExitCode.SUCCESS, result.output
    use_case = written_use_case("loans")
    assert {names["age"], names["city"]} < set(use_case.features)
    assert use_case.target == names["repaid"]
