"""A parameter is declared once: what the command line, its help, documents and Prefect's form make of that."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from jsonschema import Draft202012Validator
from prefect.utilities.schema_tools.validation import preprocess_schema
from pydantic import ValidationError

import flows.cli.app
from command_line import output
from flows.server.deployments import FORMS, describe_form, merge_parameters
from tasks.errors import UsageError
from tasks.parameters import Data, OwnData, RetrainParameters, TuneParameters, narrow_form
from tasks.parameters.form import as_usage_error

SPELT_OTHERWISE = {
    "num_epochs": "--epochs",
    "source": "--data",
    "predict": "--no-predict",
    "publish": "--no-publish",
    "model": "MODEL|NAME",
    "input": "INPUT",
    "id_columns": "--id-column",
}
BOOKS = "the book's, "
OF_THE_BOOK = {
    "num_epochs": f"{BOOKS}10 softmax, 3 linear",
    "batch_size": f"{BOOKS}256 softmax, 10 linear",
    "lr": f"{BOOKS}0.1 softmax, 0.03 linear",
    "loss": f"{BOOKS}cross-entropy softmax, squared linear",
    "weight_decay": f"{BOOKS}0.0; on your own images found by rule; on your own tables auto",
}
LINEAR = {"model": "linear-regression"}


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")


def rows(*command: str) -> dict[str, str]:
    """The line of each option and argument in a command's help."""
    lines = (line.strip("│ ") for line in output(f"{' '.join(command)} --help").splitlines() if line.startswith("│"))
    return {line.split()[0]: line for line in lines if line}


def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, *path, name)
    if not hasattr(command, "commands"):
        yield path, command


def values(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every field and its default, parts of parts included."""
    for name, value in document.items():
        yield from values(value) if isinstance(value, dict) else [(name, value)]


@pytest.mark.slow
def test_help_shows_every_default() -> None:
    """Rich takes what stands in brackets for a style, and drops it."""
    for entrypoint, kind in FORMS.items():
        name = str(entrypoint).rpartition(".")[2]
        shown, book = rows(name), OF_THE_BOOK if name in ("retrain", "tune") else {}
        for field, default in values(kind().model_dump(mode="json")):
            option = SPELT_OTHERWISE.get(field, f"--{field.replace('_', '-')}")
            told = ",".join(map(str, default)) if isinstance(default, list) else str(default or "")
            wanted = r"\w.*" if field == "name" or not told else re.escape(book.get(field, told))
            row = shown[option if option in shown else field.upper()]
            assert isinstance(default, bool) or re.search(rf"\[default: {wanted}[];]", row), row
    for path, command in commands(typer.main.get_command(flows.cli.app.app)):
        shown = rows(*path)
        for option in command.params:
            assert not re.search(r"(?<!\\)\[", getattr(option, "help", None) or ""), option.help
            if option.default not in (None, False) and not callable(option.default):
                default = option.opts[0].removeprefix("--") if option.default is True else option.default
                assert f"[default: {default}]" in shown[option.opts[0]]


def test_help_shows_the_limits_of_a_value() -> None:
    shown = rows("retrain")
    assert "10 softmax, 3 linear; on your own images found by rule; at least 1; at most 10000]" in shown["--epochs"]
    assert "0.0; at least 0; below 1]" in shown["--validation"]
    assert "above 0]" in shown["--lr"]


def test_help_has_every_command_under_a_heading_the_first_one_first() -> None:
    shown = output("--help")
    headings = re.findall(r"(?m)^╭─ (.*?) ─+╮$", shown)
    assert headings == ["Options", "Train", "Predict", "Models", "Schedule and watch", "Machine, disk and copies"]
    first, *others = re.findall(r"(?m)^│ ([a-z]+) {2,}", shown)
    assert first == "retrain"
    assert {first, *others} == {name for (name,), _ in commands(typer.main.get_command(flows.cli.app.app))}


def faults(form: dict[str, Any], **training: Any) -> list[list[Any]]:
    """Where Prefect's server, which checks by the schema, finds one: of a union it would say that nothing fits."""
    found = Draft202012Validator(form).iter_errors({"parameters": {"training": training}})
    return [list(each.absolute_path) for each in found]


def test_the_form_takes_either_model_shows_no_default_that_would_be_sent_and_leaves_no_field_empty() -> None:
    """What it refuses is in test_operate_schedule.py."""
    form = describe_form(RetrainParameters)
    fit: list[dict[str, Any]] = [{}, {"num_epochs": 4}, {**LINEAR, "loss": "huber"}, {"dropout": 0.0}]
    assert [faults(form, **training) for training in fit] == [[]] * 4
    parts = [part.get("properties", {}) for part in form["definitions"].values()]
    assert all([field["position"] for field in part.values()] == list(range(len(part))) for part in parts)
    fields = [field for part in parts for field in part.values()]
    shown = [field["default"] for field in fields if "default" in field]
    assert set(shown) <= {True}, "a switch cannot be empty"
    unions = [field["anyOf"] for field in fields if "anyOf" in field]
    assert not [each for each in unions if {"type": "null"} in each and len(each) == 2]
    assert str(form).isascii(), "a PostgreSQL database without UTF-8 refuses other characters in JSON"


def names(text: str) -> set[str]:
    return {*text.split()}


OWN_TABLE = {"name": "houses", "data": {"source": "/data/houses.csv", "target": "price"}}
OWN_IMAGES = {"name": "photos", "data": {"source": "/data/photos"}}
OF_SOFTMAX = names(
    "max_train_loss min_train_accuracy min_test_accuracy max_accuracy_drop resize class_weight max_recall_drop "
    "max_nats_rise side channels max_rejects"
)
OF_LINEAR = names(
    "loss synthetic_w synthetic_b synthetic_noise num_examples max_parameter_error max_loss_ratio max_loss_rise "
    "max_error_rise max_standardised_error"
)
OF_THE_BOOKS_DATA = names(
    "resize synthetic_w synthetic_b synthetic_noise num_examples max_train_loss min_train_accuracy min_test_accuracy "
    "max_parameter_error max_loss_rise max_loss_ratio max_standardised_error max_accuracy_drop max_recall_drop"
)
OF_OWN_DATA = {*OwnData.model_fields} | names("max_gradient class_weight min_gain max_nats_rise max_error_rise shape")
OF_IMAGES = names("side channels max_rejects")
OF_TABLES = names(
    "target sheet query missing decimal header names encoding no_date_parts features ignore category split_by "
    "time_column window split_column max_gradient shape"
)
IN_EPOCHS = names("implementation num_epochs batch_size lr schedule validation patience tuned")


@pytest.mark.parametrize(
    ("parameters", "absent"),
    [
        ({}, OF_LINEAR),
        ({"training": LINEAR}, OF_SOFTMAX | OF_IMAGES),
        (OWN_TABLE, OF_LINEAR | OF_THE_BOOKS_DATA | OF_IMAGES | IN_EPOCHS),
        (OWN_TABLE | {"training": LINEAR}, OF_SOFTMAX | OF_THE_BOOKS_DATA | OF_IMAGES | IN_EPOCHS),
        (OWN_IMAGES, OF_LINEAR | OF_THE_BOOKS_DATA | OF_TABLES),
        ({"name": "softmax-regression"}, OF_LINEAR | OF_OWN_DATA),
        ({"name": "wide", "training": LINEAR}, OF_SOFTMAX | OF_OWN_DATA | {"max_drop_p"}),
    ],
)
def test_the_form_of_a_deployment_shows_what_its_runs_can_use(parameters: dict[str, Any], absent: set[str]) -> None:
    form = describe_form(narrow_form(RetrainParameters, parameters))
    parts = {name: form["definitions"][name.capitalize()]["properties"] for name in ("training", "data", "gates")}
    shown = set(form["definitions"]["RetrainParameters"]["properties"]).union(*parts.values())
    special = OF_SOFTMAX | OF_LINEAR | OF_THE_BOOKS_DATA | OF_OWN_DATA | OF_IMAGES | OF_TABLES | IN_EPOCHS
    assert shown & special == special - absent
    assert shown >= names("name weight_decay seed device publish max_parity_error")
    assert not list(Draft202012Validator(form).iter_errors({"parameters": parameters}))


def test_a_form_takes_what_a_form_of_before_has_sent_and_nothing_else_that_it_does_not_show() -> None:
    """The server would refuse to register a deployment whose parameters its own form does not take."""
    form = describe_form(narrow_form(RetrainParameters, {"training": LINEAR}))
    everything = RetrainParameters.model_validate({"training": LINEAR}).model_dump(mode="json")
    with_nulls = preprocess_schema(form)  # as the server takes a run's
    assert not list(Draft202012Validator(with_nulls).iter_errors({"parameters": everything}))
    assert RetrainParameters.model_validate(everything).model_dump(mode="json") == everything
    for name, value in (("dropout", 0.5), ("loss", "cross-entropy"), ("model", "softmax-regression")):
        assert faults(form, **{name: value}) == [["parameters", "training", name]]


CONVERGED = "tables are fitted to convergence; their settings are cross-validated in every retrain"
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {  # for tables: parameters, and what is found and expected
    "implementation": ({"training": {"implementation": "scratch"}}, "--implementation with a table", CONVERGED),
    "epochs": ({"training": {"num_epochs": 3}}, "--epochs with a table", CONVERGED),
    "batch size": ({"training": {"batch_size": 9}}, "--batch-size with a table", CONVERGED),
    "rate": ({"training": {"lr": 0.1}}, "--lr with a table", CONVERGED),
    "schedule": ({"training": {"schedule": "cosine"}}, "--schedule with a table", CONVERGED),
    "validation": ({"training": {"validation": 0.1}}, "--validation with a table", CONVERGED),
    "patience": ({"training": {"patience": 3}}, "--patience with a table", CONVERGED),
    "search": ({"tuned": True}, "--tuned with a table", CONVERGED),
    "GPU": ({"training": {"device": "cuda"}}, "--device cuda with a table", "--device auto or cpu: tables need no GPU"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("form", [dict, Data.model_validate], ids=["as a dict", "as a model"])
def test_a_table_takes_no_setting_of_training_in_epochs_and_images_take_all(form: Any, case: str) -> None:
    given, found, expected = REFUSED[case]
    table = OWN_TABLE | given | {"data": form(OWN_TABLE["data"])}
    with pytest.raises(ValidationError) as caught:
        RetrainParameters.model_validate(table)
    error = as_usage_error(caught.value, "", "")
    assert (error.found, error.expected) == (found, expected)
    assert error.action.startswith("leave --")
    RetrainParameters.model_validate(OWN_IMAGES | given)
    with pytest.raises(UsageError) as refusal:
        merge_parameters("retrain-houses", "flows.retrain.retrain", OWN_TABLE, given)
    assert (refusal.value.found, refusal.value.expected) == (found, expected)


def test_defaults_that_a_form_of_before_sent_with_a_table_are_accepted() -> None:
    defaults = {"implementation": "concise", "schedule": "constant", "validation": 0.0, "num_epochs": None}
    parameters = RetrainParameters.model_validate(OWN_TABLE | {"training": defaults, "tuned": False})
    assert (parameters.training.weight_decay, parameters.training.shape) == (None, "auto")


@pytest.mark.parametrize(
    ("parameters", "found"),
    [(OWN_IMAGES, "--shape with photos"), ({}, "shape is for your own tables"), (OWN_TABLE, "")],
    ids=["images", "book", "table"],
)
def test_a_shape_is_for_tables(parameters: dict[str, Any], found: str) -> None:
    document = parameters | {"training": {"shape": "curves"}}
    if not found:
        assert RetrainParameters.model_validate(document).training.exported_values["shape"] == "curves"
        return
    with pytest.raises(ValidationError, match=found):
        RetrainParameters.model_validate(document)


@pytest.mark.parametrize("form", [dict, Data.model_validate], ids=["as a dict", "as a model"])
def test_no_search_takes_a_table(form: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TuneParameters.model_validate(OWN_TABLE | {"data": form(OWN_TABLE["data"])})
    error = as_usage_error(caught.value, "", "")
    assert (error.expected, error.action) == (CONVERGED, "train it: gradmill retrain houses")
    TuneParameters.model_validate(OWN_IMAGES)
