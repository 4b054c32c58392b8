"""Types that skops may load from a model file. Kept apart from the loading, because settings need only the names."""

TRUSTED_TYPES = (
    # held by scikit-learn's gradient boosting and column transformer, and missing from skops' own list of safe types
    "functools.partial",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)
