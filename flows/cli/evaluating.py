"""``gradmill evaluate``: a kept version on labelled rows."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from flows.cli.checks import check_evaluation, place
from flows.cli.options import Quiet, Verbose, print_json
from flows.cli.parameters import taking, validated
from flows.cli.runs import on_prefect
from flows.cli.tables import add_row, print_fact, print_line, print_table
from tasks.errors import UsageError
from tasks.parameters import EvaluateParameters

if TYPE_CHECKING:
    from tasks.judging.evaluation_result import EvaluationResult


@taking(EvaluateParameters)
def evaluate(document: dict[str, Any], as_json: bool, verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Judge the champion, or another version, on rows whose labels are known now; trains nothing.

    Figures come with 95 % intervals, by period where there is a time column, beside those at publication.
    """
    if "name" not in document:
        raise UsageError("no model", "gradmill evaluate NAME DATA", "see gradmill models")
    parameters = validated(EvaluateParameters, document | {"data": place(document.get("data"))}, "evaluate")
    check_evaluation(parameters)
    with on_prefect(verbose, quiet, "flows.evaluate"):
        from flows.evaluate import evaluate as flow

        judged = flow(parameters)
    if as_json:
        print_json({"schema_version": 1, **judged.model_dump(mode="json")})
    elif not quiet:
        _show(judged)


def _show(result: "EvaluationResult") -> None:
    """The facts and tables of the evaluation's page: names are to the left and numbers to the right."""
    from flows.pages import run_pages
    from tasks.store.version_page import tabulate_periods

    for label, value in [("judged", run_pages.describe_evaluation(result)), *run_pages.list_evaluation_facts(result)]:
        print_fact(label, value)
    for table in (
        run_pages.tabulate_evaluation(result),
        tabulate_periods([dict(each) for each in result.periods]),
    ):
        shown = Table(box=None, pad_edge=False)
        for number, title in enumerate(table.head):
            shown.add_column(title, justify="right" if number else "left")
        for row in table.rows:
            add_row(shown, *map(str, row))
        if table.rows:
            print_line("")
            print_table(shown)
