"""The types that a model file may contain by default, besides those that skops itself trusts.

They are what the estimators of ``tests/support/estimator_catalogue.py`` consist of: a file of any of them is accepted.
skops imports a type by its name, creates it without calling its ``__init__`` or calls it with values of the file, and
restores its state with ``__setstate__`` or as its ``__dict__``. So a type or function may be listed here only if none
of this runs code that the file chooses, whatever the values are. Each group says why that is so.

Two things are left to :mod:`driftloop.registry.file_contents`, which inspects the values themselves: indices that
compiled code does not check, and names of methods and of files.

Not listed, and never to be:

- functions and objects that call what they are given by name: ``operator.methodcaller``, ``builtins.eval``, functions
  of other packages, bound methods (skops reports each of them under its own name);
- ``scipy.stats`` distributions, which a randomized search may hold: their ``__setstate__`` passes text of the file to
  ``exec``. Log ``search.best_estimator_`` instead;
- ``PyFuncDistance64``, a metric that calls a function of the file.
"""

# A partial is called only by estimators that hold it, and the function in it has to be trusted, too.
_FUNCTIONS = (
    "functools.partial",
    # Computations on arrays. They open no file and call none of their arguments.
    "numpy.mean",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "sklearn.cluster._kmeans._kmeans_single_elkan",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.feature_selection._univariate_selection.r_regression",
    "sklearn.utils.validation.check_array",
)

# Plain data: a dictionary, a dtype (read from the header of an array, without pickle), a class without content,
# sparse matrices (read by scipy.sparse.load_npz, without pickle), and polynomials as arrays.
_DATA = (
    "builtins.object",
    "collections.OrderedDict",
    "numpy.dtype",
    "scipy.interpolate._bsplines.BSpline",
    "scipy.sparse._csc.csc_array",
    "scipy.sparse._csc.csc_matrix",
    "scipy.sparse._csr.csr_array",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.utils._bunch.Bunch",
)

# Parts of estimators that are written in Python, without a __setstate__ or __reduce__ of their own: their state
# becomes their __dict__. What they call later are methods of other parts, which are checked alike.
_PARTS = (
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.cluster._bisect_k_means._BisectingTree",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    *(
        f"sklearn.gaussian_process.kernels.{name}"
        for name in (
            "CompoundKernel",
            "ConstantKernel",
            "DotProduct",
            "ExpSineSquared",
            "Exponentiation",
            "Matern",
            "PairwiseKernel",
            "Product",
            "RBF",
            "RationalQuadratic",
            "Sum",
            "WhiteKernel",
        )
    ),
    "sklearn.impute._iterative._ImputerTriplet",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
)

# Compiled: their __setstate__ copies numbers and arrays. Neither skops nor scikit-learn checks the indices in these
# arrays, which is why skops does not trust trees; file_contents does.
_COMPILED = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
    *(
        f"sklearn.metrics._dist_metrics.{name}Distance64"
        for name in ("Chebyshev", "Euclidean", "Hamming", "Haversine", "Manhattan", "Minkowski")
    ),
)

# What a search or a threshold keeps of its fit: how it split and scored. A splitter is numbers. A scorer calls a method
# of an estimator by its name, which file_contents restricts to predictions, and a metric of arrays.
_SEARCHES = (
    *(
        f"sklearn.model_selection._split.{name}"
        for name in (
            "GroupKFold",
            "GroupShuffleSplit",
            "KFold",
            "LeaveOneOut",
            "RepeatedKFold",
            "RepeatedStratifiedKFold",
            "ShuffleSplit",
            "StratifiedGroupKFold",
            "StratifiedKFold",
            "StratifiedShuffleSplit",
            "TimeSeriesSplit",
        )
    ),
    "sklearn.metrics._scorer._CurveScorer",
    "sklearn.metrics._scorer._MultimetricScorer",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    *(
        f"sklearn.metrics._classification.{name}"
        for name in (
            "accuracy_score",
            "balanced_accuracy_score",
            "brier_score_loss",
            "d2_log_loss_score",
            "f1_score",
            "fbeta_score",
            "jaccard_score",
            "log_loss",
            "matthews_corrcoef",
            "precision_score",
            "recall_score",
        )
    ),
    *(
        f"sklearn.metrics._ranking.{name}"
        for name in ("average_precision_score", "roc_auc_score", "top_k_accuracy_score")
    ),
    *(
        f"sklearn.metrics._regression.{name}"
        for name in (
            "d2_absolute_error_score",
            "explained_variance_score",
            "max_error",
            "mean_absolute_error",
            "mean_absolute_percentage_error",
            "mean_gamma_deviance",
            "mean_pinball_loss",
            "mean_poisson_deviance",
            "mean_squared_error",
            "mean_squared_log_error",
            "mean_tweedie_deviance",
            "median_absolute_error",
            "r2_score",
            "root_mean_squared_error",
            "root_mean_squared_log_error",
        )
    ),
)

# The boosters' estimators are parameters, and their state becomes their __dict__. The trees are a text (LightGBM), or
# bytes (XGBoost, CatBoost), which __setstate__ passes to the library's own parser in C++
# (LGBM_BoosterLoadModelFromString, XGBoosterUnserializeFromBuffer, _load_from_string). A parser reads numbers and
# names; no part of these formats is Python. An objective, metric or callback of the user's own is a function, and
# refused like any other.
_BOOSTERS = (
    "catboost.core.CatBoostClassifier",
    "catboost.core.CatBoostRegressor",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRFClassifier",
    "xgboost.sklearn.XGBRFRegressor",
    "xgboost.sklearn.XGBRegressor",
)

# Our own transformers: a name or an array of origins becomes their __dict__, and they only read columns of a frame.
_FEATURES = (
    "driftloop.features.datetime_features.DatetimeFeatures",
    "driftloop.features.text_column.TextColumn",
)

TRUSTED_TYPES = (*_FUNCTIONS, *_DATA, *_PARTS, *_COMPILED, *_SEARCHES, *_BOOSTERS, *_FEATURES)
