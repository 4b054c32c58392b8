"""Common estimators, fitted to small data: what users of scikit-learn and of the boosters bring along.

The default list of trusted types is made from these: whatever skops does not know of them is in it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import NMF, PCA, FastICA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest, VarianceThreshold, f_regression
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern, WhiteKernel
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    HuberRegressor,
    Lars,
    Lasso,
    LassoCV,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    QuantileRegressor,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
    SGDRegressor,
    TheilSenRegressor,
    TweedieRegressor,
)
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    KFold,
    RandomizedSearchCV,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor, NearestCentroid
from sklearn.neighbors import RadiusNeighborsClassifier as RadiusNeighbors
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.semi_supervised import LabelPropagation, SelfTrainingClassifier
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from driftloop.features import DatetimeFeatures, TextColumn

ROWS = 60
TEXTS = ["late again", "on time", "early and on time", "late in the rain", "so late", "time flies"] * (ROWS // 6)


class FittedEstimator(NamedTuple):
    """A fitted estimator, rows that it predicts, and its method for predictions."""

    estimator: Any
    rows: pd.DataFrame
    method: str


def numbers() -> pd.DataFrame:
    """Return three columns of positive numbers."""
    return pd.DataFrame(np.random.default_rng(0).gamma(2, 1, (ROWS, 3)), columns=["a", "b", "c"])


def numbers_with_gaps() -> pd.DataFrame:
    """Return columns of numbers, some of which are missing."""
    return numbers().mask(np.random.default_rng(1).random((ROWS, 3)) < 0.1)


def mixed() -> pd.DataFrame:
    """Return two columns of numbers, one of which has gaps, and a column of strings."""
    return numbers_with_gaps()[["a", "b"]].assign(b=numbers()["b"], kind=["x", "y", "z"] * (ROWS // 3))


def texts() -> pd.DataFrame:
    """Return one column of texts."""
    return pd.DataFrame({"text": TEXTS})


def datetimes() -> pd.DataFrame:
    """Return a column of datetimes, some of which are missing, and one of texts."""
    times = pd.Series(pd.date_range("2026-01-01", periods=ROWS, freq="31h", unit="ns"))
    return pd.DataFrame({"signed": times.mask(times.index % 7 == 0), "text": TEXTS})


def classes() -> Any:
    """Return two classes."""
    return (numbers()["a"] > numbers()["b"]).astype(int).to_numpy()


def amounts() -> Any:
    """Return a positive number for each row."""
    return (1 + numbers().sum(axis=1)).to_numpy()


def _booster(module: str, name: str, **params: Any) -> Any:
    """Return an estimator of an optional library, which is imported only when it is asked for."""
    return getattr(import_module(module), name)(**params)


def _encoded(make: Callable[[], Any]) -> Any:
    """Return a pipeline that encodes texts for an estimator, and leaves gaps in numbers to it."""
    return make_pipeline(make_column_transformer((OrdinalEncoder(), ["kind"]), remainder="passthrough"), make())


def _forest(trees: int = 4) -> Any:
    return RandomForestClassifier(trees, random_state=0)


def _logistic() -> Any:
    return LogisticRegression()


PROBABILITIES: Mapping[str, Callable[[], Any]] = {
    "LogisticRegression": _logistic,
    "LogisticRegressionCV": lambda: LogisticRegressionCV(cv=2, Cs=2),
    "SGDClassifier": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis,
    "QuadraticDiscriminantAnalysis": QuadraticDiscriminantAnalysis,
    "GaussianNB": GaussianNB,
    "BernoulliNB": BernoulliNB,
    "MultinomialNB": MultinomialNB,
    "ComplementNB": ComplementNB,
    "KNeighborsClassifier": KNeighborsClassifier,
    "KNeighborsClassifier, ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree", metric="manhattan"),
    "RadiusNeighborsClassifier": lambda: RadiusNeighbors(radius=5),
    "DecisionTreeClassifier": lambda: DecisionTreeClassifier(max_depth=3),
    "ExtraTreeClassifier": lambda: ExtraTreeClassifier(max_depth=3, random_state=0),
    "RandomForestClassifier": _forest,
    "ExtraTreesClassifier": lambda: ExtraTreesClassifier(4, random_state=0),
    "GradientBoostingClassifier": lambda: GradientBoostingClassifier(n_estimators=3),
    "HistGradientBoostingClassifier": lambda: HistGradientBoostingClassifier(max_iter=3),
    "AdaBoostClassifier": lambda: AdaBoostClassifier(n_estimators=3),
    "BaggingClassifier": lambda: BaggingClassifier(n_estimators=3, random_state=0),
    "MLPClassifier": lambda: MLPClassifier((4,), max_iter=20, random_state=0),
    "MLPClassifier, sgd": lambda: MLPClassifier((4,), solver="sgd", max_iter=20, random_state=0),
    "GaussianProcessClassifier": lambda: GaussianProcessClassifier(optimizer=None),
    "CalibratedClassifierCV, sigmoid": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "CalibratedClassifierCV, isotonic": lambda: CalibratedClassifierCV(_forest(), cv=2, method="isotonic"),
    "VotingClassifier": lambda: VotingClassifier([("lr", _logistic()), ("rf", _forest())], voting="soft"),
    "StackingClassifier": lambda: StackingClassifier([("lr", _logistic()), ("rf", _forest())], cv=2),
    "GridSearchCV": lambda: GridSearchCV(_forest(), {"max_depth": [1, 2]}, cv=2, scoring="roc_auc"),
    "GridSearchCV, time series": lambda: GridSearchCV(_logistic(), {"C": [0.1, 1]}, cv=TimeSeriesSplit(2)),
    "RandomizedSearchCV": lambda: RandomizedSearchCV(_logistic(), {"C": [0.1, 1]}, n_iter=2, cv=2),
    "TunedThresholdClassifierCV": lambda: TunedThresholdClassifierCV(_logistic(), cv=2),
    "FixedThresholdClassifier": lambda: FixedThresholdClassifier(_logistic(), threshold=0.3),
    "OneVsRestClassifier": lambda: OneVsRestClassifier(_logistic()),
    "SelfTrainingClassifier": lambda: make_pipeline(StandardScaler(), SelfTrainingClassifier(_logistic())),
    "LabelPropagation": LabelPropagation,
    "DummyClassifier": DummyClassifier,
    "StandardScaler": lambda: make_pipeline(StandardScaler(), _logistic()),
    "MinMaxScaler": lambda: make_pipeline(MinMaxScaler(), _logistic()),
    "MaxAbsScaler": lambda: make_pipeline(MaxAbsScaler(), Normalizer(), _logistic()),
    "RobustScaler": lambda: make_pipeline(RobustScaler(), _logistic()),
    "PowerTransformer": lambda: make_pipeline(PowerTransformer(), _logistic()),
    "QuantileTransformer": lambda: make_pipeline(QuantileTransformer(n_quantiles=10), _logistic()),
    "KBinsDiscretizer": lambda: make_pipeline(KBinsDiscretizer(3, quantile_method="linear"), _logistic()),
    "PolynomialFeatures": lambda: make_pipeline(PolynomialFeatures(2), StandardScaler(), _logistic()),
    "SplineTransformer": lambda: make_pipeline(SplineTransformer(n_knots=3), _logistic()),
    "FunctionTransformer": lambda: make_pipeline(FunctionTransformer(np.log1p), _logistic()),
    "PCA": lambda: make_pipeline(PCA(2), _logistic()),
    "FastICA": lambda: make_pipeline(FastICA(2, random_state=0, max_iter=1000), _logistic()),
    "NMF": lambda: make_pipeline(NMF(2, init="nndsvda", random_state=0, max_iter=1000), _logistic()),
    "SelectKBest": lambda: make_pipeline(SelectKBest(k=2), VarianceThreshold(), _logistic()),
    "SelectFromModel": lambda: make_pipeline(SelectFromModel(_forest()), _logistic()),
    "RFE": lambda: make_pipeline(RFE(_logistic(), n_features_to_select=2), _logistic()),
    "Nystroem": lambda: make_pipeline(
        Nystroem(n_components=5, random_state=0), RBFSampler(random_state=0), _logistic()
    ),
    "RandomTreesEmbedding": lambda: make_pipeline(RandomTreesEmbedding(3, random_state=0), _logistic()),
    "FeatureUnion": lambda: make_pipeline(make_union(PCA(1), StandardScaler()), _logistic()),
    "KMeans features": lambda: make_pipeline(KMeans(3, n_init=1, random_state=0), _logistic()),
    "LGBMClassifier": lambda: _booster("lightgbm", "LGBMClassifier", n_estimators=3, verbose=-1, n_jobs=1),
    "XGBClassifier": lambda: _booster("xgboost", "XGBClassifier", n_estimators=3, n_jobs=1),
    "CatBoostClassifier": lambda: _booster(
        "catboost", "CatBoostClassifier", iterations=3, verbose=False, allow_writing_files=False, thread_count=1
    ),
}
"""Classifiers of rows of numbers, by name, whose predictions are probabilities."""

LABELS: Mapping[str, Callable[[], Any]] = {
    "RidgeClassifier": RidgeClassifier,
    "Perceptron": Perceptron,
    "SGDClassifier, hinge": lambda: SGDClassifier(random_state=0),
    "LinearSVC": LinearSVC,
    "SVC": SVC,
    "NuSVC": lambda: NuSVC(nu=0.3),
    "NearestCentroid": NearestCentroid,
    "OneVsOneClassifier": lambda: OneVsOneClassifier(LinearSVC()),
    "OutputCodeClassifier": lambda: OutputCodeClassifier(_logistic(), random_state=0),
    "VotingClassifier, hard": lambda: VotingClassifier([("lr", _logistic()), ("svm", LinearSVC())]),
    "IsolationForest": lambda: IsolationForest(n_estimators=3, random_state=0),
    "LocalOutlierFactor": lambda: LocalOutlierFactor(5, novelty=True),
    "OneClassSVM": OneClassSVM,
    "SGDOneClassSVM": lambda: SGDOneClassSVM(random_state=0),
    "KMeans": lambda: KMeans(3, n_init=1, random_state=0),
    "MiniBatchKMeans": lambda: MiniBatchKMeans(3, n_init=1, random_state=0),
    "BisectingKMeans": lambda: BisectingKMeans(3, random_state=0),
    "GaussianMixture": lambda: GaussianMixture(2, random_state=0),
}
"""Classifiers without probabilities, outlier detectors and clusterings of rows of numbers, by name."""

REGRESSORS: Mapping[str, Callable[[], Any]] = {
    "LinearRegression": LinearRegression,
    "Ridge": Ridge,
    "Lasso": lambda: Lasso(0.01),
    "LassoCV": lambda: LassoCV(cv=2, alphas=5),
    "ElasticNet": lambda: ElasticNet(0.01),
    "ElasticNetCV": lambda: ElasticNetCV(cv=2, alphas=5),
    "Lars": Lars,
    "BayesianRidge": BayesianRidge,
    "ARDRegression": ARDRegression,
    "HuberRegressor": HuberRegressor,
    "QuantileRegressor": lambda: QuantileRegressor(alpha=0.01),
    "TheilSenRegressor": lambda: TheilSenRegressor(random_state=0, max_subpopulation=100),
    "RANSACRegressor": lambda: RANSACRegressor(random_state=0),
    "PoissonRegressor": PoissonRegressor,
    "GammaRegressor": GammaRegressor,
    "TweedieRegressor": lambda: TweedieRegressor(power=1.5),
    "SGDRegressor": lambda: SGDRegressor(random_state=0),
    "SVR": SVR,
    "LinearSVR": LinearSVR,
    "KernelRidge": KernelRidge,
    "GaussianProcessRegressor": lambda: GaussianProcessRegressor(RBF() * Matern() + WhiteKernel(), optimizer=None),
    "PLSRegression": lambda: PLSRegression(2),
    "KNeighborsRegressor": KNeighborsRegressor,
    "DecisionTreeRegressor": lambda: DecisionTreeRegressor(max_depth=3),
    "RandomForestRegressor": lambda: RandomForestRegressor(4, random_state=0),
    "ExtraTreesRegressor": lambda: ExtraTreesRegressor(4, random_state=0),
    "GradientBoostingRegressor": lambda: GradientBoostingRegressor(n_estimators=3, loss="huber"),
    "HistGradientBoostingRegressor": lambda: HistGradientBoostingRegressor(max_iter=3, loss="poisson"),
    "AdaBoostRegressor": lambda: AdaBoostRegressor(n_estimators=3, random_state=0),
    "BaggingRegressor": lambda: BaggingRegressor(n_estimators=3, random_state=0),
    "MLPRegressor": lambda: MLPRegressor(hidden_layer_sizes=(4,), max_iter=20, random_state=0),
    "VotingRegressor": lambda: VotingRegressor([("lr", LinearRegression()), ("tree", DecisionTreeRegressor())]),
    "StackingRegressor": lambda: StackingRegressor([("lr", LinearRegression()), ("svr", LinearSVR())], cv=2),
    "GridSearchCV, KFold": lambda: GridSearchCV(
        Ridge(), {"alpha": [0.1, 1]}, cv=KFold(2), scoring="neg_root_mean_squared_error"
    ),
    "TransformedTargetRegressor": lambda: TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
    "DummyRegressor": DummyRegressor,
    "SelectKBest, f_regression": lambda: make_pipeline(SelectKBest(f_regression, k=2), LinearRegression()),
    "LGBMRegressor": lambda: _booster("lightgbm", "LGBMRegressor", n_estimators=3, verbose=-1, n_jobs=1),
    "XGBRegressor": lambda: _booster("xgboost", "XGBRegressor", n_estimators=3, n_jobs=1),
    "CatBoostRegressor": lambda: _booster(
        "catboost", "CatBoostRegressor", iterations=3, verbose=False, allow_writing_files=False, thread_count=1
    ),
}
"""Regressors of rows of numbers, by name."""

PREPARED: Mapping[str, tuple[Callable[[], pd.DataFrame], Callable[[], Any]]] = {
    "SimpleImputer": (numbers_with_gaps, lambda: make_pipeline(SimpleImputer(add_indicator=True), _forest())),
    "KNNImputer": (numbers_with_gaps, lambda: make_pipeline(KNNImputer(), _logistic())),
    "OneHotEncoder": (
        mixed,
        lambda: make_pipeline(
            make_column_transformer(
                (OneHotEncoder(handle_unknown="ignore"), ["kind"]), (SimpleImputer(strategy="median"), ["a", "b"])
            ),
            _logistic(),
        ),
    ),
    "OrdinalEncoder": (
        mixed,
        lambda: make_pipeline(
            make_column_transformer((OrdinalEncoder(), ["kind"]), remainder="passthrough"),
            HistGradientBoostingClassifier(max_iter=3),
        ),
    ),
    "TargetEncoder": (
        mixed,
        lambda: make_pipeline(
            make_column_transformer((TargetEncoder(cv=2, random_state=0), ["kind"]), ("passthrough", ["b"])), _forest()
        ),
    ),
    "make_column_selector": (
        mixed,
        lambda: make_pipeline(
            make_column_transformer(
                (OneHotEncoder(), make_column_selector(dtype_include=object)),
                (SimpleImputer(), make_column_selector(dtype_include="number")),
            ),
            _logistic(),
        ),
    ),
    "TfidfVectorizer": (
        texts,
        lambda: make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), _logistic()),
    ),
    "CountVectorizer": (
        texts,
        lambda: make_pipeline(make_column_transformer((CountVectorizer(), "text")), MultinomialNB()),
    ),
    "HashingVectorizer": (
        texts,
        lambda: make_pipeline(
            make_column_transformer((HashingVectorizer(n_features=64), "text")), TruncatedSVD(2), _forest()
        ),
    ),
    "DatetimeFeatures": (
        datetimes,
        lambda: make_pipeline(
            make_column_transformer(
                (DatetimeFeatures(), ["signed"]),
                (make_pipeline(TextColumn(), HashingVectorizer(n_features=64), TruncatedSVD(2)), ["text"]),
            ),
            HistGradientBoostingClassifier(max_iter=3),
        ),
    ),
    **{
        f"{name}, in a pipeline": (mixed, partial(_encoded, PROBABILITIES[name]))
        for name in ("LGBMClassifier", "XGBClassifier", "CatBoostClassifier")
    },
    "KNeighborsClassifier of texts": (
        texts,
        lambda: make_pipeline(make_column_transformer((TfidfVectorizer(), "text")), KNeighborsClassifier()),
    ),
}
"""Pipelines with a preparation, by name, and their rows."""

SEVERAL_OUTPUTS: Mapping[str, Callable[[], Any]] = {
    "MultiOutputRegressor": lambda: MultiOutputRegressor(Ridge()),
    "MultiOutputClassifier": lambda: MultiOutputClassifier(_logistic()),
    "ClassifierChain": lambda: ClassifierChain(_logistic()),
}
"""Estimators of two outputs, by name."""

NAMES = (*PROBABILITIES, *LABELS, *REGRESSORS, *PREPARED, *SEVERAL_OUTPUTS)
BOOSTERS = tuple(name for name in NAMES if name.startswith(("LGBM", "XGB", "CatBoost")))


def fit(name: str) -> FittedEstimator:
    """Return an estimator of the catalogue, fitted; the boosters need their library."""
    if name in PROBABILITIES:
        return FittedEstimator(PROBABILITIES[name]().fit(numbers(), classes()), numbers(), "predict_proba")
    if name in LABELS:
        return FittedEstimator(LABELS[name]().fit(numbers(), classes()), numbers(), "predict")
    if name in REGRESSORS:
        return FittedEstimator(REGRESSORS[name]().fit(numbers(), amounts()), numbers(), "predict")
    if name in PREPARED:
        rows, make = PREPARED[name]
        return FittedEstimator(make().fit(rows(), classes()), rows(), "predict_proba")
    two_outputs = np.column_stack([classes(), 1 - classes()])
    return FittedEstimator(SEVERAL_OUTPUTS[name]().fit(numbers(), two_outputs), numbers(), "predict")
