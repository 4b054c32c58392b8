"""Candidates of a use case: pipelines of which a retrain takes the best."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

MakePipeline = Callable[[], Any]


def parameter_grid(make_pipeline: MakePipeline, grid: Mapping[str, Sequence[Any]]) -> dict[str, MakePipeline]:
    """Return a candidate for each combination of parameters, named by it, such as ``model__C:0.1 model__l1_ratio:0``.

    Args:
        make_pipeline: Returns a new, unfitted estimator.
        grid: Values by parameter, as ``set_params`` names them.
    """
    from sklearn.model_selection import ParameterGrid  # noqa: PLC0415  # takes seconds, and most callers train nothing

    return {
        " ".join(f"{name}:{value}" for name, value in params.items()): partial(_with_params, make_pipeline, params)
        for params in ParameterGrid(grid)
    }


def _with_params(make_pipeline: MakePipeline, params: Mapping[str, Any]) -> Any:
    return make_pipeline().set_params(**params)
