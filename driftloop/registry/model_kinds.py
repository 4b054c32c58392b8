"""Which kinds of models are loaded, and for all others the call that saves one that is."""

from mlflow.models import Model

from driftloop.errors import Rejected

FLAVOR = "sklearn"
BOOSTER_FLAVORS = {"catboost": "CatBoostClassifier", "lightgbm": "LGBMClassifier", "xgboost": "XGBClassifier"}
PREDICTION_METHODS = ("predict", "predict_proba", "predict_log_proba")


class UnsupportedModel(Rejected):
    """The model is of a kind that is not loaded; the message says what to call in place of what saved it."""


def log_model_call(predict_fn: str = "predict") -> str:
    """Return the call that logs an estimator so that it can be served."""
    return (
        'mlflow.sklearn.log_model(estimator, name="model", serialization_format="skops", '
        "skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(estimator)), "
        f'signature=infer_signature(X), input_example=X.head(), pyfunc_predict_fn="{predict_fn}")'
    )


def predict_method(description: Model) -> str:
    """Return the name of the estimator's method that makes the predictions."""
    return str(description.flavors.get("python_function", {}).get("predict_fn", "predict"))


def require_supported(description: Model) -> None:
    """Raise :class:`UnsupportedModel` unless a model is scikit-learn's, in skops' format, and has a signature."""
    flavor = description.flavors.get(FLAVOR)
    call = log_model_call(predict_method(description))
    if flavor is None:
        raise UnsupportedModel(_describe_other_flavor(sorted(set(description.flavors) - {"python_function"})))
    if (serialization := flavor.get("serialization_format", "pickle")) != "skops":
        raise UnsupportedModel(
            f"it was saved as {serialization}, which runs code of the file when it is loaded; autologging does so: "
            f"switch that off with mlflow.sklearn.autolog(log_models=False), and call {call}"
        )
    if description.signature is None or description.signature.inputs is None:
        raise UnsupportedModel(f"it has no signature, which requests are checked against: call {call}")


def require_prediction_method(estimator: object, description: Model) -> None:
    """Raise :class:`UnsupportedModel` unless the method that a model names makes predictions and exists."""
    method = predict_method(description)
    if method in PREDICTION_METHODS and hasattr(estimator, method):
        return
    found = [name for name in PREDICTION_METHODS if hasattr(estimator, name)]
    name = type(estimator).__name__
    if not found:
        raise UnsupportedModel(
            f"{name} predicts nothing: it has none of the methods {', '.join(PREDICTION_METHODS)}; log a pipeline that "
            "ends with an estimator that has one"
        )
    problem = (
        f"{name} has no method {method}"
        if method in PREDICTION_METHODS
        else f"pyfunc_predict_fn is {method}, and only {', '.join(PREDICTION_METHODS)} are served"
    )
    call = log_model_call("predict_proba" if "predict_proba" in found else found[0])
    raise UnsupportedModel(f"{problem}: call {call}")


def _describe_other_flavor(flavors: list[str]) -> str:
    if not flavors:
        return (
            "it is a Python function (mlflow.pyfunc), which runs code of the file when it is loaded: put what it does "
            f"into a scikit-learn pipeline, and call {log_model_call()}"
        )
    flavor = flavors[0]
    if flavor in BOOSTER_FLAVORS:
        return (
            f"it was saved with mlflow.{flavor}: use {flavor}'s estimator for scikit-learn, such as "
            f"{flavor}.{BOOSTER_FLAVORS[flavor]}, and call {log_model_call('predict_proba')}"
        )
    return (
        f"it was saved with mlflow.{flavor}, and only scikit-learn estimators are served: wrap the model in one whose "
        f"types are trusted (DRIFTLOOP_REGISTRY__TRUSTED_TYPES), and call {log_model_call()}"
    )
