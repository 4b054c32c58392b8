"""The kinds of panels that dashboards consist of, and their queries. Each panel has a description."""

from collections.abc import Mapping
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge as bar_gauge_builders
from grafana_foundation_sdk.builders import common, dashboard
from grafana_foundation_sdk.builders import heatmap as heatmap_builders
from grafana_foundation_sdk.builders import stat as stat_builders
from grafana_foundation_sdk.builders import statetimeline as state_timeline_builders
from grafana_foundation_sdk.builders import timeseries as time_series_builders
from grafana_foundation_sdk.builders.prometheus import Dataquery as Query
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLink,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BLUE, GREEN, ORANGE, RED, PURPLE = "blue", "green", "orange", "red", "purple"
THRESHOLD_SERIES = "/limit|threshold|at gate|low|high/"
"""Names of the series that others are compared with; they are drawn dashed."""
MAX_CELLS = 200  # of a heatmap or state timeline from left to right: more cannot be distinguished

WINDOWS_URL = "${pages}/?model=${model}&version=${__field.labels.version}"
"""The drift worker's page of a version's windows; each window has its page and evidently's report."""

ValueTexts = Mapping[int, tuple[str, str]]
"""By value, the text and the colour that a panel shows instead of the number."""
AnyPanel = (
    bar_gauge_builders.Panel
    | heatmap_builders.Panel
    | stat_builders.Panel
    | state_timeline_builders.Panel
    | time_series_builders.Panel
)
PanelBuilder = TypeVar(
    "PanelBuilder",
    bar_gauge_builders.Panel,
    heatmap_builders.Panel,
    stat_builders.Panel,
    state_timeline_builders.Panel,
    time_series_builders.Panel,
)


def range_query(expr: str, name: str = "") -> Query:
    """Query values over the dashboard's time range; ``name`` may contain labels in double braces."""
    return Query().expr(expr).legend_format(name).datasource(DATA_SOURCE).range()


def instant_query(expr: str, name: str = "") -> Query:
    """Query values at the end of the dashboard's time range; ``name`` may contain labels in double braces."""
    return Query().expr(expr).legend_format(name).datasource(DATA_SOURCE).instant()


def bucket_query(expr: str) -> Query:
    """Query a histogram's buckets over the dashboard's time range, by ``le``."""
    return range_query(expr, "{{le}}").format(PromQueryFormat.HEATMAP)


def time_series(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> time_series_builders.Panel:
    """Build a panel of lines over time."""
    panel = (
        time_series_builders.Panel()
        .show_points(VisibilityMode.NEVER)
        .axis_soft_min(0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .override_by_regexp(
            THRESHOLD_SERIES, [DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})]
        )
    )
    return _describe(panel, title, description, unit, queries, span, height=8)


def bars(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> time_series_builders.Panel:
    """Build a panel of stacked bars over time."""
    return (
        time_series(title, description, unit, *queries, span=span)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    )


def stat(
    title: str, description: str, unit: str, *queries: Query, span: int = 6, value_texts: ValueTexts | None = None
) -> stat_builders.Panel:
    """Build a panel of the latest values in large type, or of the texts in ``value_texts`` instead of them."""
    panel = (
        stat_builders.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.BACKGROUND if value_texts else BigValueColorMode.VALUE)
        .reduce_options(_last_value())
        .color_scheme(_threshold_colors())
        .thresholds(_thresholds(Threshold(None, BLUE)))
    )
    if value_texts:
        panel.mappings(_value_mappings(value_texts))
    return _describe(panel, title, description, unit, queries, span, height=4)


def stat_names(title: str, description: str, *queries: Query, span: int = 6) -> stat_builders.Panel:
    """Build a panel of the names of the series that exist, in large type, without their values."""
    return stat(title, description, "none", *queries, span=span).text_mode(BigValueTextMode.NAME)


def bar_gauge(title: str, description: str, *queries: Query, span: int = 12) -> bar_gauge_builders.Panel:
    """Build a panel of bars whose values are relative to a threshold; they turn red at 100 %."""
    panel = (
        bar_gauge_builders.Panel()
        .decimals(2)
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(_last_value())
        .color_scheme(_threshold_colors())
        .thresholds(_thresholds(Threshold(None, GREEN), Threshold(1, RED)))
    )
    return _describe(panel, title, description, "percentunit", queries, span, height=12)


def state_timeline(
    title: str, description: str, *queries: Query, value_texts: ValueTexts, span: int = 24, height: int = 12
) -> state_timeline_builders.Panel:
    """Build a panel of states over time, one row for each series."""
    panel = (
        state_timeline_builders.Panel()
        .max_data_points(MAX_CELLS)
        .mappings(_value_mappings(value_texts))
        .color_scheme(_threshold_colors())
        .show_value(VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(80)
        .line_width(0)
        .legend(common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST))
    )
    return _describe(panel, title, description, "none", queries, span, height)


def heatmap(
    title: str, description: str, unit: str, *queries: Query, max_value: float | None = None, span: int = 24
) -> heatmap_builders.Panel:
    """Build a heatmap with a row for each series or bucket.

    With ``max_value``, colours go from blue at 0 over white at half of it to red.
    """
    color = heatmap_builders.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).steps(64)
    panel = (
        heatmap_builders.Panel()
        .max_data_points(MAX_CELLS)
        .calculate(False)
        .color(color.scheme("Blues") if max_value is None else color.scheme("RdBu").reverse(True).min(0).max(max_value))
        .cell_gap(1)
        .show_legend()
        .mode(TooltipDisplayMode.SINGLE)
    )
    return _describe(panel, title, description, unit, queries, span, height=12)


def windows_link() -> list[Builder[DashboardLink]]:
    """Build the link from a series of a version to the drift worker's page of its windows."""
    return [dashboard.DashboardLink("windows of this version").url(WINDOWS_URL).target_blank(True)]


def _describe(
    panel: PanelBuilder, title: str, description: str, unit: str, queries: tuple[Query, ...], span: int, height: int
) -> PanelBuilder:
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query.ref_id(letter))
    return panel.title(title).description(description).datasource(DATA_SOURCE).unit(unit).span(span).height(height)


def _value_mappings(value_texts: ValueTexts) -> list[ValueMapping]:
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(value_texts.items())
    }
    return [ValueMap(results)]


def _threshold_colors() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def _thresholds(*steps: Threshold) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([*steps])


def _last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])
