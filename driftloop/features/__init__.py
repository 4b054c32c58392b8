"""Transformers for pipelines, whose types are trusted by default: a function of one's own in a pipeline is not.

Only this package imports scikit-learn at its top: it is imported where a pipeline is made, or where one is loaded.
"""

from driftloop.features.datetime_features import DatetimeFeatures
from driftloop.features.text_column import TextColumn

__all__ = ["DatetimeFeatures", "TextColumn"]
