"""``gradmill evaluate``: a kept version on labelled rows."""

from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

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
    from flows.story import judgement, periods

    for label, value in [("judged", judgement.headline(result)), *judgement.facts(result)]:
        print_fact(label, value)
    _print(("", "now", "95 % interval", "at publication"), judgement.figures(result))
    if result.periods:
        _print(periods.head(result), periods.rows(result.periods))


def _print(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table in which names are to the left and numbers to the right."""
    name, *numbers = head
    shown = Table(name, *(Column(title, justify="right") for title in numbers), box=None, pad_edge=False)
    for row in rows:
        add_row(shown, *row)
    print_line("")
    print_table(shown)
