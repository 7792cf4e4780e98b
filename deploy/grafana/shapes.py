"""How a panel of each kind looks, and what every query, link and choice has."""

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def choice(name, label, values):
    """A choice of a label's values. "All" holds for series that lack the label, too."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def graph(title, anchor):
    panel = (
        timeseries.Panel()
        .fill_opacity(0)
        .line_width(2)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
        .thresholds(steps())
    )
    return titled(panel, title, anchor)


def number(title, anchor):
    panel = stat.Panel().color_mode(BigValueColorMode.VALUE).decimals(0)
    return titled(panel, title, anchor)


def timeline(title, anchor):
    panel = statetimeline.Panel().show_value(VisibilityMode.AUTO).row_height(0.8).thresholds(steps())
    return titled(panel, title, anchor)


def titled(panel, title, anchor):
    runbook = (
        dashboard.DashboardLink("Runbook")
        .type(DashboardLinkType.LINK)
        .url("${runbook:raw}#" + anchor)
        .target_blank(True)
    )
    return panel.title(title).datasource(SOURCE).links([runbook])


def query(expr, legend, ref="A"):
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(ref).datasource(SOURCE).range()


def steps(*above):
    """Green below all steps. A step: a colour, and the value from which on it holds."""
    steps = [Threshold(color="green")] + [Threshold(value=value, color=color) for color, value in above]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def words(meanings):
    """What values are called, and their colours."""
    results = {
        str(value): ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(meanings.items())
    }
    return [ValueMap(options=results)]
