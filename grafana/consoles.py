"""A dashboard as a Prometheus console: the same panels and queries, for machines without Grafana."""

import json
import re
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel, ValueMap, VariableModel
from grafana_foundation_sdk.models.prometheus import Dataquery

TEMPLATE = """{{{{ template "driftloop_head" }}}}
<script type="application/json" id="board">
{board}
</script>
{{{{ template "driftloop_tail" }}}}
"""  # both templates are in driftloop.lib, in the folder of the consoles
VARIABLE_QUERY = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


def render_console(board: Dashboard, boards: Sequence[Dashboard]) -> str:
    """Return the console of ``board``: its panels as JSON, which the script in ``driftloop.lib`` draws.

    Args:
        board: The dashboard.
        boards: All dashboards, which the console links to.
    """
    assert board.panels
    assert board.templating
    spec = {
        "title": board.title,
        "description": board.description,
        "links": {f"{str(other.uid).removeprefix('driftloop-')}.html": other.title for other in boards},
        "variables": [_variable(model) for model in board.templating.list_val or [] if model.type_val == "query"],
        "panels": [_panel(panel) for panel in board.panels],
    }
    # Labels are in double brackets, because double braces are the template's.
    text = json.dumps(spec, ensure_ascii=False, indent=1).replace("{{", "[[").replace("}}", "]]")
    return TEMPLATE.format(board=text)


def _variable(variable: VariableModel) -> dict[str, Any]:
    parts = VARIABLE_QUERY.fullmatch(str(variable.query))
    assert parts, f"a variable whose query is not label_values(…): {variable.query}"
    default = variable.current.value if variable.current and not variable.include_all else ""
    return {"name": variable.name, **parts.groupdict(), "all": variable.all_value, "default": default}


def _panel(panel: Panel | RowPanel) -> dict[str, Any]:
    if isinstance(panel, RowPanel):
        return {"type": "row", "title": panel.title}
    assert panel.grid_pos
    assert panel.field_config
    defaults, options = panel.field_config.defaults, panel.options
    mappings = [mapping.options for mapping in defaults.mappings or [] if isinstance(mapping, ValueMap)]
    return {
        "type": panel.type_val,
        "title": panel.title,
        "description": panel.description,
        "span": panel.grid_pos.w,
        "unit": defaults.unit,
        "queries": [_query(target) for target in panel.targets or [] if isinstance(target, Dataquery)],
        "texts": {value: [text.text, text.color] for mapping in mappings for value, text in mapping.items()},
        "names_only": getattr(options, "text_mode", None) == "name",
        "max_value": getattr(getattr(options, "color", None), "max_val", None),
        "stacked": bool(getattr(getattr(defaults, "custom", None), "stacking", None)),
    }


def _query(query: Dataquery) -> dict[str, Any]:
    return {"expr": query.expr, "name": query.legend_format, "buckets": query.format_val == "heatmap"}
