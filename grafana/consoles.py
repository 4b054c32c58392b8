"""A dashboard as a Prometheus console: the same panels and queries, drawn where no Grafana is."""

import json
import re
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel, ValueMap, VariableModel
from grafana_foundation_sdk.models.prometheus import Dataquery

PAGE = """{{{{ template "driftloop_head" }}}}
<script type="application/json" id="board">
{board}
</script>
{{{{ template "driftloop_tail" }}}}
"""  # both stand in driftloop.lib, beside the consoles
CHOICE = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


def page(board: Dashboard, boards: Sequence[Dashboard]) -> str:
    """The console's template: what the dashboard says, for the script in ``driftloop.lib`` to draw."""
    assert board.panels
    assert board.templating
    told = {
        "title": board.title,
        "description": board.description,
        "others": {f"{str(one.uid).removeprefix('driftloop-')}.html": one.title for one in boards},
        "choices": [_choice(one) for one in board.templating.list_val or [] if one.type_val == "query"],
        "panels": [_panel(one) for one in board.panels],
    }
    # Labels stand in double brackets: double braces are the template's.
    text = json.dumps(told, ensure_ascii=False, indent=1).replace("{{", "[[").replace("}}", "]]")
    return PAGE.format(board=text)


def _choice(variable: VariableModel) -> dict[str, Any]:
    parts = CHOICE.fullmatch(str(variable.query))
    assert parts, f"a choice that is not label_values: {variable.query}"
    first = variable.current.value if variable.current and not variable.include_all else ""
    return {"name": variable.name, **parts.groupdict(), "all": variable.all_value, "first": first}


def _panel(panel: Panel | RowPanel) -> dict[str, Any]:
    if isinstance(panel, RowPanel):
        return {"type": "row", "title": panel.title}
    assert panel.grid_pos
    assert panel.field_config
    defaults, options = panel.field_config.defaults, panel.options
    texts = [one.options for one in defaults.mappings or [] if isinstance(one, ValueMap)]
    return {
        "type": panel.type_val,
        "title": panel.title,
        "description": panel.description,
        "span": panel.grid_pos.w,
        "unit": defaults.unit,
        "queries": [_query(one) for one in panel.targets or [] if isinstance(one, Dataquery)],
        "texts": {value: [text.text, text.color] for one in texts for value, text in one.items()},
        "names": getattr(options, "text_mode", None) == "name",
        "most": getattr(getattr(options, "color", None), "max_val", None),
        "stacked": bool(getattr(getattr(defaults, "custom", None), "stacking", None)),
    }


def _query(query: Dataquery) -> dict[str, Any]:
    return {"expr": query.expr, "name": query.legend_format, "buckets": query.format_val == "heatmap"}
