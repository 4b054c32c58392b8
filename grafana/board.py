"""What all dashboards share: variables, annotations of retrains and swaps, and links to each other and to pages."""

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

from grafana.panels import BLUE, DATA_SOURCE, PURPLE, AnyPanel

TAG = "driftloop"
DRIFT_WORKER_URL = "http://localhost:8001"  # of `make up`; the variable `pages` of each dashboard changes it


@dataclass(frozen=True)
class Variable:
    """A dashboard variable whose values are those of a label."""

    name: str
    query: str
    description: str
    default: str = ""
    multi: bool = False
    """Whether several values can be selected; all of them are at first."""


MODEL = Variable("model", "label_values(driftloop_predictor_serving_version_info, model)", "The registered model.")
VERSION = Variable(
    "version",
    'label_values(driftloop_predictor_serving_version_info{model="$model"}, version)',
    "Versions of the model that have served.",
    multi=True,
)
METRIC = Variable(
    "metric",
    'label_values(driftloop_quality{model="$model"}, metric)',
    "The metric that quality is shown in.",
    default="roc_auc",
)
COLUMN = Variable(
    "column",
    'label_values(driftloop_drift_threshold{model="$model"}, column)',
    "The column whose statistics are shown in detail.",
)


class Annotation(AnnotationQuery):
    """Moments that all panels of a dashboard mark.

    It adds the fields that Grafana's Prometheus data source reads and the SDK does not have.
    """

    def __init__(self, name: str, expr: str, text: str, color: str, *, value_is_time: bool) -> None:
        """Mark the results of ``expr``.

        Args:
            name: The name of the annotation.
            expr: The query.
            text: The text of a mark; it may contain labels in double braces.
            color: The colour of a mark.
            value_is_time: Whether the query's values are the times to mark, in milliseconds since 1970. Otherwise the
                ranges are marked in which the value is above 0.
        """
        super().__init__(name=name, datasource=DATA_SOURCE, icon_color=color)
        self.prometheus = {
            "target": Dataquery(expr=expr, range_val=True, ref_id="A"),
            "titleFormat": text,
            "useValueForTime": value_is_time,
        }

    def to_json(self) -> dict[str, object]:
        """Return the annotation in Grafana's format."""
        return super().to_json() | self.prometheus


SERVING_VERSIONS = 'sum by (model, version) (driftloop_predictor_serving_version_info{model="$model"}) > 0'
ANNOTATIONS: list[AnnotationQuery] = [
    Annotation(
        "Retrains",
        'max by (model, state) (driftloop_trainer_last_retrain_timestamp_seconds{model="$model"}) * 1000',
        "retrain {{state}}",
        BLUE,
        value_is_time=True,
    ),
    Annotation(
        "Swaps",
        f"({SERVING_VERSIONS}) unless ({SERVING_VERSIONS.replace('}', '} offset 1m')})",
        "version {{version}} starts to serve",
        PURPLE,
        value_is_time=False,
    ),
]


def build_dashboard(
    name: str, title: str, description: str, variables: Sequence[Variable], *rows: tuple[str, Sequence[AnyPanel]]
) -> Dashboard:
    """Build a dashboard from rows, each with a heading and its panels."""
    builder = (
        dashboard.Dashboard(title)
        .uid(f"driftloop-{name}")
        .description(description)
        .tags([TAG])
        .readonly()  # changes made in Grafana would be lost with the next start: change the code
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
            dashboard.TextBoxVariable("pages")
            .description("The address of the drift worker.")
            .default_value(DRIFT_WORKER_URL)
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
    for variable in variables:
        builder.with_variable(_query_variable(variable))
    for heading, panels in rows:
        builder.with_row(dashboard.Row(heading))
        for panel in panels:
            builder.with_panel(panel)
    built = builder.build()
    built.annotations = AnnotationContainer(ANNOTATIONS)
    for number, built_panel in enumerate(built.panels or [], start=1):
        built_panel.id_val = number
    return built


def _query_variable(variable: Variable) -> dashboard.QueryVariable:
    builder = (
        dashboard.QueryVariable(variable.name)
        .description(variable.description)
        .datasource(DATA_SOURCE)
        .query(variable.query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    if variable.multi:
        everything = VariableOption(selected=True, text=["All"], value=["$__all"])
        return builder.multi(True).include_all(True).all_value(".*").current(everything)
    if variable.default:
        return builder.current(VariableOption(selected=True, text=variable.default, value=variable.default))
    return builder
