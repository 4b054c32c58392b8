"""The panels that dashboards are made of, and their queries. Each panel says what it is for."""

from collections.abc import Mapping
from string import ascii_uppercase
from typing import TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.prometheus import Dataquery as Query
from grafana_foundation_sdk.cog.builder import Builder as Built
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

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BLUE, GREEN, ORANGE, RED, PURPLE = "blue", "green", "orange", "red", "purple"
READ_AGAINST = "/limit|threshold|measured|low|high/"
"""Names of series that others are read against: drawn dashed."""
CELLS = 200  # of a heat map or time line from left to right: as many as can be told apart

WINDOWS = "${pages}/?model=${model}&version=${__field.labels.version}"
"""Where the drift worker shows the windows of a series' version: each has its page and evidently's report."""

Shown = Mapping[int, tuple[str, str]]
"""By value, the text that stands for it and its colour."""
Builder = TypeVar("Builder", bargauge.Panel, heatmap.Panel, stat.Panel, statetimeline.Panel, timeseries.Panel)
AnyPanel = bargauge.Panel | heatmap.Panel | stat.Panel | statetimeline.Panel | timeseries.Panel


def series(expr: str, name: str = "") -> Query:
    """Values over the time that is shown; ``name`` may have labels in double braces."""
    return Query().expr(expr).legend_format(name).datasource(SOURCE).range()


def latest(expr: str, name: str = "") -> Query:
    """Values at the end of the time that is shown."""
    return Query().expr(expr).legend_format(name).datasource(SOURCE).instant()


def buckets(expr: str) -> Query:
    """A histogram's buckets over time, by ``le``."""
    return series(expr, "{{le}}").format(PromQueryFormat.HEATMAP)


def chart(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .show_points(VisibilityMode.NEVER)
        .axis_soft_min(0)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .override_by_regexp(READ_AGAINST, [DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})])
    )
    return _about(panel, title, description, unit, queries, span, height=8)


def counts(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> timeseries.Panel:
    """Bars over time that stand on one another."""
    return (
        chart(title, description, unit, *queries, span=span)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    )


def number(
    title: str, description: str, unit: str, *queries: Query, span: int = 6, shown: Shown | None = None
) -> stat.Panel:
    """The latest values, large; ``shown`` has the texts that stand for them."""
    panel = (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.BACKGROUND if shown else BigValueColorMode.VALUE)
        .reduce_options(_last())
        .color_scheme(_by_threshold())
        .thresholds(_steps(Threshold(None, BLUE)))
    )
    if shown:
        panel.mappings(_texts(shown))
    return _about(panel, title, description, unit, queries, span, height=4)


def names(title: str, description: str, *queries: Query, span: int = 6) -> stat.Panel:
    """What there is, by the queries' names, large; how much of it does not matter."""
    return number(title, description, "none", *queries, span=span).text_mode(BigValueTextMode.NAME)


def ranking(title: str, description: str, *queries: Query, span: int = 12) -> bargauge.Panel:
    """Bars of shares of a limit, which are red from the limit on."""
    panel = (
        bargauge.Panel()
        .decimals(2)
        .min(0)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(_last())
        .color_scheme(_by_threshold())
        .thresholds(_steps(Threshold(None, GREEN), Threshold(1, RED)))
    )
    return _about(panel, title, description, "percentunit", queries, span, height=12)


def timeline(
    title: str, description: str, *queries: Query, shown: Shown, span: int = 24, height: int = 12
) -> statetimeline.Panel:
    """States over time, a row a series."""
    panel = (
        statetimeline.Panel()
        .max_data_points(CELLS)
        .mappings(_texts(shown))
        .color_scheme(_by_threshold())
        .show_value(VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(80)
        .line_width(0)
        .legend(common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST))
    )
    return _about(panel, title, description, "none", queries, span, height)


def heat(
    title: str, description: str, unit: str, *queries: Query, most: float | None = None, span: int = 24
) -> heatmap.Panel:
    """A row a series or bucket; with ``most``, blue from 0, white half-way, and red up to it."""
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).steps(64)
    panel = (
        heatmap.Panel()
        .max_data_points(CELLS)
        .calculate(False)
        .color(color.scheme("Blues") if most is None else color.scheme("RdBu").reverse(True).min(0).max(most))
        .cell_gap(1)
        .show_legend()
        .mode(TooltipDisplayMode.SINGLE)
    )
    return _about(panel, title, description, unit, queries, span, height=12)


def to_windows() -> list[Built[DashboardLink]]:
    """What a click on a series with a version offers."""
    return [dashboard.DashboardLink("windows of this version").url(WINDOWS).target_blank(True)]


def _about(
    panel: Builder, title: str, description: str, unit: str, queries: tuple[Query, ...], span: int, height: int
) -> Builder:
    for letter, query in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(query.ref_id(letter))
    return panel.title(title).description(description).datasource(SOURCE).unit(unit).span(span).height(height)


def _texts(shown: Shown) -> list[ValueMapping]:
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(shown.items())
    }
    return [ValueMap(results)]


def _by_threshold() -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS)


def _steps(*steps: Threshold) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([*steps])


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])
