"""SQL for outcomes: which column of the archive has them, and which of them are classes of a use case."""

from collections.abc import Mapping

from driftloop.storage.duckdb_sql import quote_literal
from driftloop.usecase import UseCase


def outcome_type(use_case: UseCase) -> str:
    """Return the DuckDB type of the target: text if any class is a text, otherwise a number."""
    return "VARCHAR" if use_case.target_type.has_text_labels else "DOUBLE"


def outcome_sql(use_case: UseCase, types: Mapping[str, str]) -> str:
    """Return SQL for the outcomes of archived rows; one that is not a class of the target is NULL.

    Args:
        use_case: Its classes decide which column has the outcomes.
        types: The columns of archived outcomes, with their types.
    """
    column = "outcome_label" if outcome_type(use_case) == "VARCHAR" else "outcome"
    value = f"{column}::{outcome_type(use_case)}" if column in types else f"NULL::{outcome_type(use_case)}"
    return value if use_case.classes is None else f"CASE WHEN {is_class_sql(use_case, value)} THEN {value} END"


def reported_sql(types: Mapping[str, str]) -> str:
    """Return SQL for archived outcomes as text, whatever their type."""
    columns = [f"{column}::VARCHAR" for column in ("outcome_label", "outcome") if column in types]
    return f"coalesce({', '.join(columns)})"


def is_class_sql(use_case: UseCase, value: str) -> str:
    """Return an SQL condition: ``value``, of the type of the target, is one of the use case's classes."""
    quoted = (quote_literal(label if isinstance(label, str) else float(label)) for label in use_case.classes or ())
    return f"{value} IN ({', '.join(f'{label}::{outcome_type(use_case)}' for label in quoted)})"
