"""Checks of a model file's values, which the trusted types leave open.

Types alone do not make a file harmless. Keys of a dictionary are converted by whatever the file names, before anything
can be inspected; compiled code follows the indices of a tree without looking at its size; and a few attributes of
scikit-learn name a method to call or a folder with pickles to read.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from driftloop.errors import Rejected

Node = dict[str, Any]
"""A part of the file ``schema.json`` in a skops file: an object, and how it is loaded."""

PLAIN_KEY_TYPES = {"builtins.str", "builtins.int", "builtins.float", "builtins.bool", "builtins.tuple"}
METHOD_ATTRIBUTES = (
    "response_method",
    "_response_method",
    "stack_method",
    "stack_method_",
    "chain_method",
    "chain_method_",
)
PREDICTION_METHODS = {None, "auto", "default", "predict", "predict_proba", "predict_log_proba", "decision_function"}
NO_CHILD = -1  # of a leaf in scikit-learn's trees


class HarmfulContents(Rejected):
    """A value in a model file would make trusted code do what a model has no use for; the message says which."""


def require_plain_keys(schema: Node) -> None:
    """Raise :class:`HarmfulContents` unless all keys of dictionaries in a file are of plain types.

    While it loads, skops calls each entry of ``key_types`` with the key's text. It means types, but would call any
    object of the file. A node with the id of an earlier node stands for that one, so all nodes with an id have to pass.
    """
    nodes = list(_nodes(schema))
    lists = _with_same_ids(nodes, [node["key_types"] for node in nodes if "key_types" in node])
    for key_types in lists:
        if _loader_and_type(key_types) != ("ListNode", "builtins.list"):
            raise HarmfulContents("the types of a dictionary's keys are no list of types")
    for key_type in _with_same_ids(nodes, [item for key_types in lists for item in key_types["content"]]):
        loader, name = _loader_and_type(key_type)
        if loader != "TypeNode" or not (name in PLAIN_KEY_TYPES or name.startswith("numpy.")):
            raise HarmfulContents(f"keys of a dictionary would be made by {name}, which is no plain type")


def require_harmless(estimator: object) -> None:
    """Raise :class:`HarmfulContents` if an object in a loaded model has values that a model does not need.

    Call it before the first prediction. It looks at every object that attributes, collections and arrays lead to.
    """
    # Loading a model has imported scikit-learn; the registry's other users do without.
    from sklearn.ensemble._forest import BaseForest  # noqa: PLC0415
    from sklearn.ensemble._gb import BaseGradientBoosting  # noqa: PLC0415
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting  # noqa: PLC0415
    from sklearn.neighbors import BallTree, KDTree  # noqa: PLC0415

    for value in _objects(estimator):
        attributes = getattr(value, "__dict__", {})
        _require_no_cache(value, attributes)
        _require_prediction_methods(value, attributes)
        features: int = attributes.get("n_features_in_", 0)
        if "tree_" in attributes:
            _require_valid_tree(attributes["tree_"], features)
        if isinstance(value, BaseForest | BaseGradientBoosting):  # their trees read the rows that they have checked
            for tree in np.ravel(attributes.get("estimators_", [])):
                _require(tree.n_features_in_ <= features, "a tree of an ensemble reads more columns than there are")
        if isinstance(value, BaseHistGradientBoosting):
            for predictor in (tree for trees in attributes.get("_predictors", []) for tree in trees):
                _require_valid_predictor(predictor, features)
        if isinstance(value, BallTree | KDTree):
            _require_valid_neighbour_tree(value)


def _nodes(schema: Node) -> Iterator[Node]:
    """Iterate over all nodes of a schema."""
    stack: list[Any] = [schema]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _with_same_ids(nodes: list[Node], some: list[Node]) -> list[Node]:
    """Return some of the nodes, and all nodes that have their ids."""
    ids = {node["__id__"] for node in some if node.get("__id__")}
    return [*some, *(node for node in nodes if node.get("__id__") in ids)]


def _loader_and_type(node: Node) -> tuple[str, str]:
    return node["__loader__"], f"{node['__module__']}.{node['__class__']}"


def _objects(root: object) -> Iterator[object]:
    """Iterate over an object and all objects that it leads to, each once."""
    seen: dict[int, object] = {}  # keeps them alive, so that no id is used twice
    stack = [root]
    while stack:
        value = stack.pop()
        if value is None or isinstance(value, str | bytes | int | float | type | np.generic) or id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        if isinstance(value, dict):
            stack += [*value, *value.values(), getattr(value, "default_factory", None)]
        elif isinstance(value, list | tuple | set | frozenset):
            stack += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            stack += np.asarray(value).ravel().tolist()
        elif isinstance(value, partial):
            stack += [value.func, value.args, value.keywords]
        stack += getattr(value, "__dict__", {}).values()


def _require(holds: object, problem: str) -> None:
    if not holds:
        raise HarmfulContents(problem)


def _require_no_cache(value: object, attributes: Mapping[str, Any]) -> None:
    """Reject a cache of fits: scikit-learn would read pickles from that folder."""
    _require(
        attributes.get("memory") is None,
        f"{type(value).__name__} caches its fits in a folder, from which pickles would be read: "
        "set memory=None before logging the model",
    )


def _require_prediction_methods(value: object, attributes: Mapping[str, Any]) -> None:
    for attribute in METHOD_ATTRIBUTES:
        named = attributes.get(attribute)
        for method in named if isinstance(named, list | tuple) else [named]:
            _require(
                method in PREDICTION_METHODS,
                f"{type(value).__name__}.{attribute} is {method!r}, which is no method that predicts",
            )


def _require_valid_tree(tree: Any, features: int) -> None:
    _require(tree.node_count <= tree.capacity, "a tree claims more nodes than it has")
    nodes = tree.__getstate__()["nodes"]
    left, right = nodes["left_child"], nodes["right_child"]
    _require_valid_nodes(left, right, nodes["feature"], left == NO_CHILD, min(tree.n_features, features))


def _require_valid_predictor(predictor: Any, features: int) -> None:
    nodes = predictor.nodes
    _require_valid_nodes(nodes["left"], nodes["right"], nodes["feature_idx"], nodes["is_leaf"] != 0, features)
    categorical = nodes[nodes["is_categorical"] != 0]
    _require(
        (categorical["bitset_idx"] < len(predictor.raw_left_cat_bitsets)).all(),
        "a tree splits by categories that it does not have",
    )


def _require_valid_nodes(
    left: npt.NDArray[Any], right: npt.NDArray[Any], feature: npt.NDArray[Any], is_leaf: npt.NDArray[Any], features: int
) -> None:
    """Require that a walk from the root ends at a leaf, and reads only columns that exist.

    Children come after their parents: scikit-learn appends nodes as it grows a tree.
    """
    parents = np.flatnonzero(~is_leaf)
    for children in (left[parents].astype(np.int64), right[parents].astype(np.int64)):
        _require(((children > parents) & (children < len(left))).all(), "a tree has children outside of itself")
    read = feature[parents]
    _require(((read >= 0) & (read < features)).all(), "a tree reads columns that do not exist")
    _require(len(left), "a tree has no nodes")


def _require_valid_neighbour_tree(tree: Any) -> None:
    data, index, nodes, bounds = (np.asarray(array) for array in tree.__getstate__()[:4])
    rows, node_count = len(data), tree.__getstate__()[6]
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    _require(
        len(index) == rows
        and ((index >= 0) & (index < rows)).all()
        and len(nodes) == node_count == bounds.shape[1]
        and bounds.shape[2] == data.shape[1]
        and (2 * inner + 2 < node_count).all()
        and ((nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"]) & (nodes["idx_end"] <= rows)).all(),
        "a tree of neighbours has rows or nodes outside of itself",
    )
