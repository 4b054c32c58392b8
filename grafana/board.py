"""What all dashboards have in common: choices, marks of retrains and swaps, links to one another and to the pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    AnnotationContainer,
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import Dataquery

from grafana.panels import BLUE, PURPLE, SOURCE, AnyPanel

TAG = "driftloop"
PAGES = "http://localhost:8001"  # where the stack has them; a choice above each dashboard


@dataclass(frozen=True)
class Choice:
    """A choice among the values of a label."""

    name: str
    query: str
    description: str
    default: str = ""
    all: bool = False
    """Whether all may be chosen at once, as they are at first."""


MODEL = Choice("model", "label_values(driftloop_predictor_serving_version_info, model)", "The registered model.")
VERSION = Choice(
    "version",
    'label_values(driftloop_predictor_serving_version_info{model="$model"}, version)',
    "Versions of the model that have answered.",
    all=True,
)
METRIC = Choice(
    "metric",
    'label_values(driftloop_quality{model="$model"}, metric)',
    "The metric that quality is shown in.",
    default="roc_auc",
)
COLUMN = Choice(
    "column", 'label_values(driftloop_drift_threshold{model="$model"}, column)', "The column to look at closely."
)


class Mark(AnnotationQuery):
    """Moments that all panels of a dashboard show, with what Grafana's Prometheus source reads and the SDK lacks."""

    def __init__(self, name: str, expr: str, text: str, color: str, *, value_is_time: bool) -> None:
        """``text`` may have labels in double braces; ``value_is_time`` says that values are milliseconds since 1970.

        Otherwise it is marked from when to when the value was above 0.
        """
        super().__init__(name=name, datasource=SOURCE, icon_color=color)
        self.prometheus = {
            "target": Dataquery(expr=expr, range_val=True, ref_id="A"),
            "titleFormat": text,
            "useValueForTime": value_is_time,
        }

    def to_json(self) -> dict[str, object]:
        """As Grafana reads it."""
        return super().to_json() | self.prometheus


IN_SERVICE = 'sum by (model, version) (driftloop_predictor_serving_version_info{model="$model"}) > 0'
MARKS: list[AnnotationQuery] = [
    Mark(
        "Retrains",
        'max by (model, state) (driftloop_trainer_last_retrain_timestamp_seconds{model="$model"}) * 1000',
        "retrain {{state}}",
        BLUE,
        value_is_time=True,
    ),
    Mark(
        "Swaps",
        f"({IN_SERVICE}) unless ({IN_SERVICE.replace('}', '} offset 1m')})",
        "version {{version}} comes into service",
        PURPLE,
        value_is_time=False,
    ),
]


def board(
    name: str, title: str, description: str, choices: Sequence[Choice], *rows: tuple[str, Sequence[AnyPanel]]
) -> Dashboard:
    """A dashboard of rows of panels."""
    builder = (
        dashboard.Dashboard(title)
        .uid(f"driftloop-{name}")
        .description(description)
        .tags([TAG])
        .readonly()  # what is changed in Grafana is lost with the next start: change the code
        .timezone("utc")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("data source")
            .description("A Prometheus that scrapes driftloop.")
            .type("prometheus")
        )
        .with_variable(
            dashboard.TextBoxVariable("pages").description("Where the drift worker is.").default_value(PAGES)
        )
        .link(
            dashboard.DashboardLink("driftloop")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .link(
            dashboard.DashboardLink("windows and reports")
            .type(DashboardLinkType.LINK)
            .url("${pages}/?model=${model}")
            .tooltip("The drift worker's pages: each window with its columns, and evidently's report on it.")
            .target_blank(True)
        )
    )
    for choice in choices:
        builder.with_variable(_variable(choice))
    for heading, panels in rows:
        builder.with_row(dashboard.Row(heading))
        for panel in panels:
            builder.with_panel(panel)
    built = builder.build()
    built.annotations = AnnotationContainer(MARKS)
    for number, one in enumerate(built.panels or [], start=1):
        one.id_val = number
    return built


def _variable(choice: Choice) -> dashboard.QueryVariable:
    variable = (
        dashboard.QueryVariable(choice.name)
        .description(choice.description)
        .datasource(SOURCE)
        .query(choice.query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if choice.all:
        everything = VariableOption(selected=True, text=["All"], value=["$__all"])
        return variable.multi(True).include_all(True).all_value(".*").current(everything)
    if choice.default:
        return variable.current(VariableOption(selected=True, text=choice.default, value=choice.default))
    return variable
