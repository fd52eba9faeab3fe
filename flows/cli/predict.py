"""``gradmill predict``, ``evaluate`` and ``demo``: predictions of a kept version."""

import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from flows.cli import display
from flows.cli.data import check_header, is_there, require_rows
from flows.cli.display import draw_facts
from flows.cli.errors import Answer, conclude
from flows.cli.options import PORT, Given, ModelArgument, Quiet, Verbose, Version, as_typed, require, validate_document
from flows.cli.train import run_flow
from tasks.errors import UsageError
from tasks.machine.words import format_number
from tasks.parameters import EvaluateParameters, PredictParameters
from tasks.parameters.addresses import is_database
from tasks.records import Prediction
from tasks.store import model_folder
from tasks.store.page_rendering import Page, PageTable, Section

FEW = 5  # the most rows whose predictions are printed


def predict(given: Annotated[Given, PredictParameters], verbose: Verbose = False, quiet: Quiet = False) -> Answer:
    """Label every row of files, however large, with the champion; the same command again resumes a killed job.

    The champion is the newest version that passed the gates, until somebody promotes another version or rolls back.

    Example: [bold]gradmill predict new-houses.csv --name houses --output predicted.csv[/]
    """
    parameters = validate_document(PredictParameters, given, "predict")
    _check_prediction(parameters)
    done, _ = run_flow("predict", parameters, verbose, quiet)
    return Answer(dict(done), lambda: draw_prediction(done))  # with full paths, unlike its document


def _check_prediction(parameters: PredictParameters) -> None:
    """Check version, input, columns and output.

    Raises:
        UsageError: there is no such model, version or input, or an option does not apply to this input or output.
        DataError: the version is damaged, or the first file of a table lacks columns.
        DeviceMissing: the device is not available.
    """
    number, _ = model_folder.load_model(parameters.name, parameters.version)
    if parameters.output:
        from tasks.batch.output_dir import Output

        Output.locate(parameters.output)
    if parameters.input is None:
        if parameters.id_columns:
            found = f"--id-column {parameters.id_columns[0]} without INPUT"
            raise UsageError(found, "a table to copy it from", "name one")
    elif not is_database(parameters.input):  # a database query takes as long as in the prediction itself
        from tasks.data.io import inputs
        from tasks.data.io.batches import ReadSpec
        from tasks.data.io.discovery import is_table

        recipe = model_folder.find_manifest(parameters.name, number).recipe
        spec = ReadSpec(recipe, parameters.columns, ids=parameters.id_columns)
        if recipe.columns or not is_there(parameters.input):
            with redirect_stdout(None):  # the run reports files that are skipped
                files = inputs.find_inputs(parameters.input).files
                inputs.check_header(files[0], spec)
                if len(files) == 1 and is_table(Path(files[0].name)) and not files[0].is_remote:
                    require_rows(files[0], recipe)
    require(parameters.device)


def evaluate(given: Annotated[Given, EvaluateParameters], verbose: Verbose = False, quiet: Quiet = False) -> Answer:
    """Judge the champion, or another version, on rows whose labels are known now; trains nothing.

    Figures come with 95 % intervals, by period where there is a time column, beside those at publication.

    Example: [bold]gradmill evaluate houses sold-in-june.csv[/]
    """
    if "name" not in given:
        raise UsageError("no model", "gradmill evaluate NAME DATA", "see gradmill models")
    parameters = validate_document(EvaluateParameters, given, "evaluate")
    number, _ = model_folder.load_model(parameters.name, parameters.version)
    from tasks.judging import labelled_rows

    schema = labelled_rows.table_schema(model_folder.find_manifest(parameters.name, number), parameters)
    if parameters.data is not None and schema:
        check = partial(labelled_rows.require_columns, schema=schema, parameters=parameters)
        check_header(parameters.data, schema, check, has_options=False)
    elif parameters.data is not None:
        labelled_rows.find_images(parameters.data)
    judged, _ = run_flow("evaluate", parameters, verbose, quiet)
    from flows.pages.run_pages import evaluation_page

    return Answer(judged, lambda: evaluation_page(judged))


def demo(
    as_json: bool,
    name: ModelArgument,
    version: Version = None,
    port: Annotated[int | None, typer.Option(**PORT, help="The port to serve on \\[default: a free port].")] = None,
) -> None:
    """Try a model in the browser: draw or drop a picture, or fill in a form, and see its answers change.

    The page is served to this machine alone, until Ctrl-C; this process answers with the published model.onnx.

    Example: [bold]gradmill demo houses[/]
    """
    from flows.server import prefect_server
    from flows.server.demo_server import load, make_server

    model, described = load(name, version)
    server, listener = make_server(model, described), prefect_server.listen(port or 0)
    address, number = f"{prefect_server.address(listener)}/", described["version"]
    display.end()
    document = {"name": name, "version": number, "url": address}
    conclude(Answer(document, f"{name} version {number} at {address} until Ctrl-C"), as_json=as_json)
    sys.stdout.flush()
    server.run([listener])


def draw_prediction(result: Prediction) -> Page:
    """The answers if they are few; how many rows were predicted, how fast, how reliably, and where they are."""
    from flows.pages.run_pages import list_prediction_facts

    following = "retrain" if result.drift.verdict == "drift" else "show"
    page = draw_facts(list_prediction_facts(result), [as_typed(f"{following} {result.name}")])
    return Page(sections=(Section("", (_tabulate_answers(result),)), *page.sections))


def _tabulate_answers(result: Prediction) -> PageTable | None:
    """The prediction of each row, if there are few."""
    if result.rows + result.rejects > FEW:
        return None
    import pyarrow.parquet as pq

    from tasks.batch.output_dir import ID, REJECTED

    rows, ids = [], list[str]()
    for row in pq.read_table(result.path).to_pylist():
        ids = [name for name in row if name.startswith(ID)]
        probabilities = [value for name, value in row.items() if name.startswith("probability_") and value is not None]
        if row[REJECTED]:
            answer = f"rejected: {row[REJECTED]}"
        else:
            answer = format_number(row["prediction"]) if "prediction" in row else row["label_name"]
        sure = f"{max(probabilities):.1%}" if probabilities else ""
        rows.append((Path(row["source"]).name, str(row["row"]), *(str(row[name]) for name in ids), answer, sure))
    return PageTable(rows, ("file", "row", *(name.removeprefix(ID) for name in ids), "answer", "probability"))
