"""Adoption of models as notebooks log them, with a real MLflow server and a bucket."""

import json
import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from typer.testing import CliRunner, Result

from driftloop.drift.profile_summary import TAG_SMALLEST_SHIFTS, TAG_STRETCHES
from driftloop.exit_codes import ExitCode
from driftloop.registry.model_registry import ModelRegistry
from driftloop.settings import RegistrySettings, StorageSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import load_reference
from driftloop_cli.adopt import conversion
from driftloop_cli.adopt.adoption import TAG_RUN, TAG_VERSION
from driftloop_cli.main import app

pytestmark = pytest.mark.integration

WINDOW_ROWS, ROWS = 20, 500
FEATURES = ["amount", "age", "shop"]


def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(ROWS), unit="h"),
            "amount": random.gamma(2, 10, ROWS),
            "age": random.integers(18, 90, ROWS),
            "shop": random.choice(["north", "south", "web"], ROWS),
        }
    )
    return rows.assign(repaid=np.where(rows["amount"] + random.normal(0, 10, ROWS) > 20, "yes", "no"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return frame()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, rows: pd.DataFrame) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    rows.to_parquet(path)
    return path


@pytest.fixture(autouse=True)
def _environment(mlflow_url: str, storage: StorageSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__URI", mlflow_url)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", storage.url)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__ENDPOINT", str(storage.endpoint))
    monkeypatch.setenv("DRIFTLOOP_WINDOW__ROWS", str(WINDOW_ROWS))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_url)
    mlflow.set_registry_uri(mlflow_url)
    yield
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Name of a registered model that only this test has."""
    return str(request.node.name).translate(str.maketrans("[]/:.", "-----"))


def encoded(estimator: Any) -> Any:
    return make_pipeline(make_column_transformer((OneHotEncoder(), ["shop"]), remainder="passthrough"), estimator)


def booster(module: str, estimator: str, **params: Any) -> Any:
    return getattr(pytest.importorskip(module), estimator)(n_estimators=5, n_jobs=1, **params)


def fitted(estimator: Any, rows: pd.DataFrame, target: str = "repaid") -> Any:
    return estimator.fit(rows[FEATURES], rows[target])


def register(name: str, log: Callable[[], Any]) -> str:
    """Log a model and register it; return its version."""
    mlflow.set_experiment("notebook")
    with mlflow.start_run():
        uri = log().model_uri
    return str(mlflow.register_model(uri, name).version)


def adopt(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(app, ["adopt", *arguments, "--json"], **options)


def adopted(*arguments: str) -> dict[str, Any]:
    result = adopt(*arguments)
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def load(mlflow_url: str, printed: dict[str, Any]) -> Any:
    """Load an adopted version as services do."""
    return ModelRegistry(RegistrySettings(uri=mlflow_url, model=printed["model"])).load(printed["version"])


FAST: dict[str, Any] = {"pip_requirements": ["scikit-learn"]}
"""MLflow otherwise looks for requirements in a process of its own."""
FOREST = RandomForestClassifier(5, random_state=0)
PIPELINES: dict[str, Callable[[], Any]] = {
    "RandomForest": lambda: encoded(FOREST),
    "LightGBM": lambda: encoded(booster("lightgbm", "LGBMClassifier", verbose=-1)),
    "CatBoost": lambda: encoded(
        pytest.importorskip("catboost").CatBoostClassifier(
            iterations=5, verbose=False, allow_writing_files=False, thread_count=1
        )
    ),
}


@pytest.mark.parametrize(
    ("kind", "serialization"),
    [
        ("RandomForest", "skops"),
        ("RandomForest", "cloudpickle"),
        ("LightGBM", "skops"),
        ("LightGBM", "pickle"),
        ("CatBoost", "cloudpickle"),
    ],
)
def test_pipeline_is_adopted_however_it_was_serialized(
    kind: str, serialization: str, rows: pd.DataFrame, data: Path, name: str, mlflow_url: str, storage: StorageSettings
) -> None:
    estimator = fitted(PIPELINES[kind](), rows)

    def log() -> Any:
        import skops.io  # noqa: PLC0415

        types = skops.io.get_untrusted_types(data=skops.io.dumps(estimator)) if serialization == "skops" else None
        return mlflow.sklearn.log_model(
            estimator, name="model", serialization_format=serialization, skops_trusted_types=types, **FAST
        )

    version = register(name, log)
    options = ["--data", str(data), "--time", "at", "--target", "repaid"]
    if serialization != "skops":
        refused = adopt(name, *options)
        assert refused.exit_code == ExitCode.REFUSED
        assert "--trust-pickle" in refused.output
        options.append("--trust-pickle")
    printed = adopted(name, version, *options)
    assert printed["adopted_from"]["version"] == version
    assert printed["inferred"] == ["signature", "example"]
    assert printed["kinds"] == {"amount": "number", "age": "number", "shop": "category"}
    assert printed["compared_rows"] == (None if serialization == "skops" else ROWS)
    assert printed["trained_through"] == str(rows["at"].max().tz_localize("UTC").isoformat())
    loaded = load(mlflow_url, printed)
    assert loaded.predict_fn == "predict_proba"
    assert loaded.example is not None
    np.testing.assert_array_equal(
        loaded.estimator.predict_proba(rows[FEATURES]), estimator.predict_proba(rows[FEATURES])
    )
    reference = load_reference(ObjectStore(storage), name, printed["version"])
    assert len(reference.rows) == ROWS
    assert reference.profile.window_rows == WINDOW_ROWS
    assert max(reference.profile.importance, key=reference.profile.importance.__getitem__) == "amount"
    origin = mlflow.MlflowClient().get_model_version(name, printed["version"]).tags
    assert origin[TAG_VERSION] == version
    assert origin[TAG_STRETCHES].startswith("one, from 2024-01-01 00:00 to ")
    assert "amount" in origin[TAG_SMALLEST_SHIFTS]
    assert set(printed["reference"]["smallest_shifts"]["1"]) <= set(printed["reference"]["standard_deviations"])
    assert origin[TAG_RUN] == printed["adopted_from"]["run_id"]


def log_lightgbm(rows: pd.DataFrame) -> tuple[Any, Callable[[], Any]]:
    estimator = fitted(booster("lightgbm", "LGBMClassifier", verbose=-1), rows[[*FEATURES, "repaid"]].assign(shop=0))
    return estimator, lambda: mlflow.lightgbm.log_model(estimator, name="model", **FAST)


def log_xgboost(rows: pd.DataFrame) -> tuple[Any, Callable[[], Any]]:
    coded = rows.assign(shop=0, repaid=(rows["repaid"] == "yes").astype(int))
    estimator = fitted(booster("xgboost", "XGBClassifier"), coded)
    return estimator, lambda: mlflow.xgboost.log_model(estimator, name="model", **FAST)


def log_catboost(rows: pd.DataFrame) -> tuple[Any, Callable[[], Any]]:
    catboost = pytest.importorskip("catboost")
    estimator = fitted(
        catboost.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False, thread_count=1),
        rows.assign(shop=0),
    )
    return estimator, lambda: mlflow.catboost.log_model(estimator, name="model", **FAST)


@pytest.mark.parametrize("log", [log_lightgbm, log_xgboost, log_catboost], ids=["lightgbm", "xgboost", "catboost"])
def test_estimator_in_the_format_of_its_library_is_adopted(
    log: Callable[[pd.DataFrame], tuple[Any, Callable[[], Any]]],
    rows: pd.DataFrame,
    tmp_path: Path,
    name: str,
    mlflow_url: str,
) -> None:
    estimator, log_model = log(rows)
    register(name, log_model)
    coded = rows[FEATURES].assign(shop=0)
    coded.to_parquet(tmp_path / "rows.parquet")
    printed = adopted(name, "--data", str(tmp_path / "rows.parquet"))
    assert printed["reference"]["order"] == "independent"
    np.testing.assert_allclose(
        load(mlflow_url, printed).estimator.predict_proba(coded), estimator.predict_proba(coded), rtol=1e-6
    )


def test_regression_and_signature_of_the_version_are_kept(
    rows: pd.DataFrame, data: Path, name: str, mlflow_url: str, storage: StorageSettings
) -> None:
    estimator = RandomForestRegressor(3, random_state=0).fit(rows[["age"]], rows["amount"])
    signature = mlflow.models.infer_signature(rows[["age"]].astype("float64"))

    def log() -> Any:
        return mlflow.sklearn.log_model(
            estimator,
            name="model",
            serialization_format="skops",
            skops_trusted_types=["sklearn.tree._tree.Tree"],
            signature=signature,
            input_example=rows[["age"]].astype("float64").head(2),
            **FAST,
        )

    register(name, log)
    printed = adopted(name, "--data", str(data), "--as", f"{name}-2")
    assert (printed["model"], printed["method"], printed["inferred"]) == (f"{name}-2", "predict", [])
    assert load(mlflow_url, printed).signature.inputs == signature.inputs
    assert list(load_reference(ObjectStore(storage), f"{name}-2", printed["version"]).rows) == ["age", "_prediction"]


# What a pickle may not do, and what is asked.


class Spy:
    """An estimator whose unpickling tries what a hostile one would."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (look_around, (os.environ["SPY_FILE"], int(os.environ["SPY_PORT"]), self.estimator))

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator


def look_around(file: str, port: int, estimator: Any) -> Any:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        reached = True
    except OSError:
        reached = False
    Path(file).write_text(json.dumps({"reached": reached, "variables": sorted(os.environ)}))
    return estimator


@pytest.fixture
def spying_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module that the process can import, with a function that reports what it can reach."""
    source = Path(__file__).read_text()
    function = source[source.index("def look_around") : source.index("@pytest.fixture\ndef spying_module")]
    (tmp_path / "spying.py").write_text(
        f"import json, os, socket\nfrom pathlib import Path\nfrom typing import Any\n{function}"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(tmp_path))
    import spying  # type: ignore[import-not-found]  # noqa: PLC0415

    yield spying
    del sys.modules["spying"]


def test_pickle_has_neither_network_nor_credentials(
    spying_module: ModuleType,
    rows: pd.DataFrame,
    data: Path,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "look_around", spying_module.look_around)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    seen = tmp_path / "seen.json"
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("SPY_FILE", str(seen))
        monkeypatch.setenv("SPY_PORT", str(server.getsockname()[1]))
        estimator = fitted(encoded(LogisticRegression()), rows)
        version = register(
            name, lambda: mlflow.sklearn.log_model(estimator, name="model", serialization_format="pickle", **FAST)
        )
        folder = tmp_path / "model"
        monkeypatch.setattr(ModelRegistry, "fetch", lambda *_: folder)
        mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(folder))
        (folder / "model.pkl").write_bytes(pickle.dumps(Spy(estimator)))
        assert not seen.exists()
        result = adopt(name, "--data", str(data), "--trust-pickle")
    if "--allow-network" in result.output:
        pytest.skip("this system does not let a process give up its network")
    assert result.exit_code == 0, result.output
    report = json.loads(seen.read_text())
    assert report["reached"] is False
    assert not [name for name in report["variables"] if name.startswith(("DRIFTLOOP", "AWS", "SPY", "MLFLOW"))]


def test_pickle_is_refused_where_the_network_cannot_be_cut(
    rows: pd.DataFrame, data: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = fitted(encoded(LogisticRegression()), rows)
    register(
        name, lambda: mlflow.sklearn.log_model(estimator, name="model", serialization_format="cloudpickle", **FAST)
    )
    # No system of the tests refuses: the process runs a copy of the module that asks for an impossible namespace.
    package = tmp_path / "refusing.py"
    package.write_text(
        "from driftloop_cli.adopt import isolation\n"
        "isolation.CLONE_NEWNET = 0x3\nisolation.CLONE_NEWUSER = 0\n"
        "from driftloop_cli.adopt.conversion_process import main\nmain()\n"
    )
    monkeypatch.setattr(conversion, "module_command", lambda _: [sys.executable, str(package)])
    options = (name, "--data", str(data), "--trust-pickle")
    refused = adopt(*options)
    assert refused.exit_code == ExitCode.REFUSED
    assert "--allow-network" in refused.output
    assert adopted(*options, "--allow-network")["compared_rows"] == ROWS


def test_types_that_are_not_trusted_are_shown_and_asked_about(
    rows: pd.DataFrame, data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimator = fitted(make_pipeline(encoded(FunctionTransformer(np.nan_to_num)), LogisticRegression()), rows)
    types = ["numpy.nan_to_num"]
    register(name, lambda: mlflow.sklearn.log_model(estimator, name="model", skops_trusted_types=types, **FAST))
    options = (name, "--data", str(data))
    for answer in ("n\n", ""):
        refused = adopt(*options, input=answer)
        assert refused.exit_code == ExitCode.REFUSED
        assert "numpy.nan_to_num" in refused.output
    assert adopt(*options, "--promote", "--yes").exit_code == ExitCode.REFUSED  # no service would load it
    accepted = adopt(*options, input="y\n")
    assert accepted.exit_code == 0, accepted.output
    assert "DRIFTLOOP_REGISTRY__TRUSTED_TYPES=numpy.nan_to_num" in accepted.stderr
    assert adopted(*options, "--yes")["added_types"] == ["numpy.nan_to_num"]
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__TRUSTED_TYPES", "numpy.nan_to_num")
    assert adopted(*options)["added_types"] == []


def test_what_can_run_code_is_never_offered(rows: pd.DataFrame, data: Path, name: str) -> None:
    estimator = fitted(make_pipeline(encoded(FunctionTransformer()), LogisticRegression()), rows)
    estimator.steps[0][1].steps[1][1].inverse_func = pickle.loads
    register(
        name, lambda: mlflow.sklearn.log_model(estimator, name="model", serialization_format="cloudpickle", **FAST)
    )
    refused = adopt(name, "--data", str(data), "--trust-pickle", "--yes")
    assert refused.exit_code == ExitCode.REFUSED
    assert "never trust" in refused.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nobody-has-it"], ExitCode.REFUSED),
        (["{name}", "9"], ExitCode.REFUSED),
        (["{name}", "--target", "z"], ExitCode.USAGE),
        (["{name}", "--method", "predict_proba"], ExitCode.USAGE),
    ],
    ids=["model", "version", "column", "method"],
)
def test_what_does_not_exist_is_refused(
    arguments: list[str], code: ExitCode, rows: pd.DataFrame, data: Path, name: str
) -> None:
    estimator = RandomForestRegressor(1).fit(rows[["age"]], rows["amount"])
    types = ["sklearn.tree._tree.Tree"]
    register(name, lambda: mlflow.sklearn.log_model(estimator, name="model", skops_trusted_types=types, **FAST))
    result = adopt(*(argument.format(name=name) for argument in arguments), "--data", str(data))
    assert result.exit_code == code, result.output


def test_model_without_estimator_is_refused(data: Path, name: str) -> None:
    class Constant(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, model_input: list[str]) -> Any:
            return [0] * len(model_input)

    register(name, lambda: mlflow.pyfunc.log_model(name="model", python_model=Constant(), **FAST))
    refused = adopt(name, "--data", str(data))
    assert refused.exit_code == ExitCode.REFUSED
    assert "mlflow.pyfunc" in refused.output


def test_too_few_rows_name_the_setting(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_WINDOW__ROWS", str(ROWS))
    result = adopt(name, "--data", str(data))
    assert result.exit_code == ExitCode.USAGE
    assert "DRIFTLOOP_WINDOW__ROWS" in result.output


def test_promotion_moves_the_alias_even_if_kafka_does_not_answer(
    rows: pd.DataFrame, data: Path, name: str, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("DRIFTLOOP_KAFKA__REQUEST_TIMEOUT_SECONDS", "0.5")
    estimator = fitted(encoded(LogisticRegression()), rows)
    register(name, lambda: mlflow.sklearn.log_model(estimator, name="model", **FAST))
    result = adopt(name, "--data", str(data), "--promote")
    assert result.exit_code == ExitCode.UNAVAILABLE, result.output
    printed = json.loads(result.stdout[: result.stdout.index("\n}\n") + 2])
    assert printed["promoted"] is True
    assert ModelRegistry(RegistrySettings(uri=mlflow_url, model=name)).champion() == printed["version"]
