"""Loading of models: only skops, only harmless contents, and reasons that say what to do."""

import json
import operator
import shutil
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
import skops.io
import structlog
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from scipy.stats import loguniform
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from driftloop.errors import RegistryUnavailable
from driftloop.registry import loading
from driftloop.registry.loading import ModelFilesUnreadable, ModelRejected, download_model, load_model

FRAME = pd.DataFrame({"x": [float(n) for n in range(40)], "y": [float(n % 7) for n in range(40)]})
OUTCOMES = [0, 1] * 20


def fitted(estimator: Any) -> Any:
    return estimator.fit(FRAME, OUTCOMES)


def save(folder: Path, estimator: Any, serialization_format: str = "skops", **options: Any) -> Path:
    has_signature = options.pop("has_signature", True)
    mlflow.sklearn.save_model(
        estimator,
        folder / "model",
        serialization_format=serialization_format,
        signature=infer_signature(FRAME) if has_signature else None,
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(estimator))
        if serialization_format == "skops"
        else None,
        input_example=FRAME.head(2) if has_signature else None,  # MLflow infers a signature from it
        pip_requirements=["scikit-learn", f"numpy=={version('numpy')}"],
        **options,
    )
    return folder / "model"


def replace_file(folder: Path, estimator: Any) -> Path:
    """Replace the model's file, as somebody can who may write to the artifact store."""
    skops.io.dump(estimator, folder / "model.skops")
    return folder


def edit_schema(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Change the description of the objects in the model's file."""
    file = folder / "model.skops"
    with ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(contents["schema.json"])
    edit(schema)
    with ZipFile(file, "w") as archive:
        for name, content in (contents | {"schema.json": json.dumps(schema).encode()}).items():
            archive.writestr(name, content)
    return folder


def edit_description(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Change the file MLmodel."""
    description = yaml.safe_load((folder / "MLmodel").read_text())
    edit(description)
    (folder / "MLmodel").write_text(yaml.safe_dump(description))
    return folder


@pytest.fixture(scope="module")
def logistic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("logistic"), fitted(LogisticRegression()))


@pytest.fixture
def folder(logistic: Path, tmp_path: Path) -> Path:
    """A model's folder, to be changed."""
    return Path(shutil.copytree(logistic, tmp_path / "copy"))


def reason(folder: Path, added_types: tuple[str, ...] = ()) -> str:
    with pytest.raises(ModelRejected) as raised:
        load_model(folder, added_types)
    return str(raised.value)


def test_load_model_accepts_skops_file_of_trusted_types(tmp_path: Path) -> None:
    stored = load_model(save(tmp_path, fitted(HistGradientBoostingClassifier(max_iter=2))))
    assert stored.estimator.predict_proba(FRAME).shape == (40, 2)
    assert stored.signature.inputs.input_names() == ["x", "y"]


@pytest.mark.parametrize("file", ["model.skops", "MLmodel", "input_example.json"])
def test_load_model_rejects_broken_file(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:60] + b"\x00{")
    assert "cannot be loaded" in reason(folder)


# What is not trusted.


class Reducing:
    """An object whose unpickling would call a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("called",))


def transforming(function: Any) -> Any:
    return make_pipeline(FunctionTransformer(function), LogisticRegression())


UNSAFE: dict[str, Any] = {
    "operator.methodcaller": transforming(operator.methodcaller("to_numpy")),
    "builtins.eval": transforming(eval),
    "shutil.rmtree": transforming(shutil.rmtree),
    "scipy.stats._distn_infrastructure.rv_continuous_frozen": RandomizedSearchCV(
        LogisticRegression(), {"C": loguniform(0.1, 1)}
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_load_model_never_offers_to_trust_what_can_run_code(folder: Path, name: str) -> None:
    message = reason(replace_file(folder, UNSAFE[name]))
    assert name in message
    assert "DRIFTLOOP_REGISTRY__TRUSTED_TYPES" not in message


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (transforming(partial(pd.read_pickle)), "pandas.io.pickle.read_pickle"),
        (transforming(LogisticRegression().fit), "sklearn.linear_model._logistic.LogisticRegression.fit"),
        (transforming(Reducing()), f"{Reducing.__module__}.Reducing"),
    ],
    ids=["function of another package", "bound method", "object with __reduce__"],
)
def test_load_model_rejects_what_the_default_list_does_not_have(folder: Path, estimator: Any, name: str) -> None:
    assert name in reason(replace_file(folder, estimator))


def test_load_model_gives_the_line_that_adds_the_missing_types(folder: Path) -> None:
    replace_file(folder, make_pipeline(FunctionTransformer(np.nan_to_num), FunctionTransformer(np.atleast_2d)))
    already = ("mine.own.Type",)
    line = "DRIFTLOOP_REGISTRY__TRUSTED_TYPES=mine.own.Type,numpy.atleast_2d,numpy.nan_to_num"
    assert reason(folder, already).endswith(line)


def test_load_model_trusts_the_types_of_the_setting(tmp_path: Path) -> None:
    folder = save(tmp_path, transforming(np.nan_to_num).fit(FRAME, OUTCOMES))
    assert "numpy.nan_to_num" in reason(folder)
    load_model(folder, ["numpy.nan_to_num"])


class Mine:
    """An estimator of a package that the reader does not have."""


@pytest.mark.parametrize(
    ("module", "hint"),
    [("nowhere.models", "not installed here: nowhere ("), ("__main__", "not installed here: __main__, the script")],
)
def test_load_model_names_the_package_of_an_untrusted_type(folder: Path, module: str, hint: str) -> None:
    replace_file(folder, Mine())
    edit_schema(folder, lambda schema: schema.update(__module__=module))
    assert hint in reason(folder)


def test_load_model_names_the_package_of_a_trusted_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    replace_file(folder, Mine())
    edit_schema(folder, lambda schema: schema.update(__module__="lightgbm.sklearn", __class__="LGBMClassifier"))
    assert "pip install 'driftloop[lightgbm]'" in reason(folder)


# What is trusted, with values that are harmful.


def scorer_that_calls(method: str) -> Any:
    """A metric of the default list that calls any method of an estimator, here of one with arguments of the file."""
    scorer = make_scorer(accuracy_score)
    scorer._response_method = method
    return partial(scorer, fitted(LogisticRegression()), "argument")


def test_load_model_calls_nothing_while_it_loads(folder: Path) -> None:
    """Skops calls what a file names as the type of a key."""
    search = fitted(GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2))
    search.called = scorer_that_calls("fit")
    replace_file(folder, search)

    def put_call_into_keys(schema: dict[str, Any]) -> None:
        attributes = schema["content"]["content"]
        attributes["param_grid"]["key_types"]["content"] = [attributes["called"]]

    assert "keys of a dictionary would be made by functools.partial" in reason(edit_schema(folder, put_call_into_keys))


def test_load_model_does_not_believe_ids_of_key_types(folder: Path) -> None:
    """A node with a known id stands for the earlier node, whatever else it says."""
    search = fitted(GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2))
    search.a_call = scorer_that_calls("fit")
    replace_file(folder, search)

    def reuse_id(schema: dict[str, Any]) -> None:
        attributes = schema["content"]["content"]
        attributes["param_grid"]["key_types"]["content"][0]["__id__"] = attributes["a_call"]["__id__"]

    assert "keys of a dictionary" in reason(edit_schema(folder, reuse_id))


def stacking_that_calls(method: str) -> Any:
    stacking = fitted(StackingClassifier([("a", LogisticRegression()), ("b", LogisticRegression())], cv=2))
    stacking.stack_method_ = [method, method]
    return stacking


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (stacking_that_calls("fit"), "stack_method_ is 'fit'"),
        (transforming(scorer_that_calls("fit")), "_response_method is 'fit'"),
        (make_pipeline(StandardScaler(), LogisticRegression(), memory="a folder"), "set memory=None"),
    ],
    ids=["method of a stacking", "method of a scorer", "cache of a pipeline"],
)
def test_load_model_rejects_harmful_attribute(folder: Path, estimator: Any, message: str) -> None:
    assert message in reason(replace_file(folder, estimator))


def damage_tree(estimator: Any, field: str, value: int) -> Any:
    tree = estimator.tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    return estimator


def damage_predictor(estimator: Any, field: str, value: int) -> Any:
    estimator._predictors[0][0].nodes[field][0] = value
    return estimator


def damage_neighbours(estimator: Any) -> Any:
    state = list(estimator._tree.__getstate__())
    state[1] = state[1] + 1_000
    estimator._tree.__setstate__(tuple(state))
    return estimator


def with_narrow_trees(estimator: Any) -> Any:
    estimator.n_features_in_ = 1
    return estimator


@pytest.mark.parametrize(
    "make",
    [
        lambda: damage_tree(fitted(DecisionTreeClassifier()), "left_child", 10_000),
        lambda: damage_tree(fitted(DecisionTreeClassifier()), "right_child", 0),
        lambda: damage_tree(fitted(DecisionTreeClassifier()), "feature", 2),
        lambda: with_narrow_trees(fitted(RandomForestClassifier(2))),
        lambda: damage_predictor(
            fitted(HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=1)), "left", 10_000
        ),
        lambda: damage_predictor(
            fitted(HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=1)), "feature_idx", 2
        ),
        lambda: damage_predictor(
            fitted(HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=1)), "is_categorical", 1
        ),
        lambda: damage_neighbours(fitted(KNeighborsClassifier())),
    ],
    ids=[
        "child beyond the end",
        "child before its parent",
        "column of a tree",
        "columns of a forest",
        "child of a boosted tree",
        "column of a boosted tree",
        "categories of a boosted tree",
        "rows of neighbours",
    ],
)
def test_load_model_rejects_indices_that_compiled_code_would_follow(folder: Path, make: Callable[[], Any]) -> None:
    assert "a tree" in reason(replace_file(folder, make()))


# What is not a model that can be served.


@pytest.mark.parametrize("serialization_format", ["pickle", "cloudpickle"])
def test_load_model_rejects_pickle(tmp_path: Path, serialization_format: str) -> None:
    message = reason(save(tmp_path, fitted(LogisticRegression()), serialization_format))
    assert f"saved as {serialization_format}" in message
    assert "autolog(log_models=False)" in message
    assert 'serialization_format="skops"' in message


def test_load_model_rejects_model_without_signature(tmp_path: Path) -> None:
    message = reason(save(tmp_path, fitted(LogisticRegression()), has_signature=False))
    assert "signature=infer_signature(X)" in message


@pytest.mark.parametrize(
    ("flavors", "message"),
    [
        ({"pytorch": {}, "python_function": {}}, "mlflow.pytorch, and only scikit-learn"),
        ({"python_function": {"loader_module": "mlflow.pyfunc.model"}}, "mlflow.pyfunc"),
        ({"xgboost": {}, "python_function": {}}, "xgboost.XGBClassifier"),
        ({"lightgbm": {}, "python_function": {}}, "lightgbm.LGBMClassifier"),
    ],
)
def test_load_model_says_what_to_call_in_place_of_another_flavor(
    folder: Path, flavors: dict[str, Any], message: str
) -> None:
    edit_description(folder, lambda description: description.update(flavors=flavors))
    given = reason(folder)
    assert message in given
    assert "mlflow.sklearn.log_model(" in given


@pytest.mark.parametrize(
    ("estimator", "method", "message"),
    [
        (LogisticRegression(), "decision_function", 'pyfunc_predict_fn="predict_proba"'),
        (StandardScaler(), "transform", "StandardScaler predicts nothing"),
    ],
)
def test_load_model_rejects_method_that_predicts_nothing(
    tmp_path: Path, estimator: Any, method: str, message: str
) -> None:
    assert message in reason(save(tmp_path, fitted(estimator), pyfunc_predict_fn=method))


# Versions of libraries.


def test_load_model_reports_versions_once(folder: Path) -> None:
    edit_description(folder, lambda description: description["flavors"]["sklearn"].update(sklearn_version="1.3.2"))
    edit_schema(folder, lambda schema: schema.update(_skops_version="0.9"))
    with structlog.testing.capture_logs() as logs:
        versions = load_model(folder).library_versions
    (line,) = [line for line in logs if line["event"] == "model.version_mismatch"]
    assert line["saved"] == {"scikit-learn": "1.3.2", "skops": "0.9"}
    assert line["running"] == {"scikit-learn": version("scikit-learn"), "skops": version("skops")}
    assert (versions["skops"].saved, versions["numpy"].saved) == ("0.9", version("numpy"))
    assert {"python", "mlflow"} <= set(versions)


def test_load_model_logs_nothing_for_equal_versions(folder: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        load_model(folder)
    assert not logs


def test_load_model_rejects_another_major_version_of_scikit_learn(folder: Path) -> None:
    edit_description(folder, lambda description: description["flavors"]["sklearn"].update(sklearn_version="2.0.1"))
    assert "saved with scikit-learn 2.0.1" in reason(folder)


def test_load_model_rejects_newer_protocol_of_skops(folder: Path) -> None:
    edit_schema(folder, lambda schema: schema.update(protocol=99, _skops_version="9.0"))
    assert all(part in reason(folder) for part in ("protocol 99", "saved with skops 9.0", version("skops")))


def test_load_model_rejects_estimator_that_would_predict_differently(tmp_path: Path) -> None:
    folder = save(tmp_path, fitted(AdaBoostClassifier(n_estimators=2)))
    load_model(folder)
    edit_description(folder, lambda description: description["flavors"]["sklearn"].update(sklearn_version="1.5.2"))
    assert "AdaBoostClassifier has changed" in reason(folder)


@pytest.mark.parametrize(
    ("module", "name"), [("_loss", "CyHalfBinomialLoss"), ("sklearn.compose._column_transformer", "_RemainderColsList")]
)
def test_load_model_names_versions_rather_than_types_of_an_older_scikit_learn(
    folder: Path, module: str, name: str
) -> None:
    edit_description(folder, lambda description: description["flavors"]["sklearn"].update(sklearn_version="1.5.2"))
    edit_schema(folder, lambda schema: schema.update(__module__=module, __class__=name))
    message = reason(folder)
    assert f"{module}.{name} (saved with scikit-learn 1.5.2; here: scikit-learn {version('scikit-learn')})" in message
    assert "DRIFTLOOP_REGISTRY__TRUSTED_TYPES" not in message


def test_load_model_names_versions_if_the_state_of_an_older_file_does_not_fit(folder: Path) -> None:
    edit_description(folder, lambda description: description["flavors"]["sklearn"].update(sklearn_version="1.5.2"))
    edit_schema(folder, lambda schema: schema.update(__loader__="TreeNode"))
    assert "cannot be loaded" in (message := reason(folder))
    assert "saved with scikit-learn 1.5.2" in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError("403 Forbidden"), RegistryUnavailable),
        (KeyError("nobody has thought of it"), RegistryUnavailable),
        (requests.ConnectionError("refused"), RegistryUnavailable),
        (MlflowException("no such version", RESOURCE_DOES_NOT_EXIST), ModelFilesUnreadable),
    ],
)
def test_download_model_translates_errors_of_every_artifact_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(loading, "download_artifacts", fail)
    with pytest.raises(expected, match=str(error.args[0])):
        download_model("models:/m/1", tmp_path)
