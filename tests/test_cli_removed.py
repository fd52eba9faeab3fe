"""What was removed is named with what to use instead, wherever it is typed or still stored."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

import small_models
from candidate import seal
from command_line import answer, refused
from documents import load
from flows.cli import removed
from flows.server.deployments import FORMS, describe_form, merge_parameters
from tasks.errors import UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data

PARAMETERS = [
    (form, model, name, action)
    for form in FORMS.values()
    for model in form.list_models()
    for name, action in model.removed.items()
]


@pytest.mark.parametrize(
    ("typed", "action"),
    [
        *removed.COMMANDS.items(),
        *((" ".join(words), action) for words, action in removed.list_options().items()),
    ],
)
def test_what_was_removed_is_exit_2_and_says_what_to_use_instead(typed: str, action: str) -> None:
    command, _, option = typed.partition(" ")
    refused(2, typed, f"gradmill: {option or command} was removed", f"to do: {action}")
    error = answer(typed, 2)["error"]
    assert (error["exit_code"], error["found"], error["action"]) == (2, f"{option or command} was removed", action)


@pytest.mark.parametrize(("form", "model", "name", "action"), PARAMETERS)
def test_a_stored_parameter_that_was_removed_is_ignored_where_it_changes_nothing_and_refused_elsewhere(
    form: Any, model: Any, name: str, action: str
) -> None:
    part = next((part for part, each in form.model_fields.items() if each.annotation is model), None)
    for value, is_harmless in ((None, True), (0.0, True), ("other", False), (0.1, False)):
        document = {part: {name: value}} if part else {name: value}
        schema = Draft202012Validator(describe_form(form))
        assert schema.is_valid({"parameters": document}) == is_harmless
        if is_harmless:
            assert name not in form.model_validate(document).model_dump_json()
            continue
        with pytest.raises(ValidationError, match="was removed"):
            form.model_validate(document)
        flow = form.__name__.removesuffix("Parameters").lower()
        with pytest.raises(UsageError) as caught:
            merge_parameters("x", f"flows.{flow}.{flow}", {}, document)
        assert caught.value.action == action


def test_settings_of_a_table_that_an_earlier_release_trained_in_epochs_are_named_once_and_ignored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small_models.publish("houses")
    folder = artifact_paths.version("houses", 1)
    manifest = load(folder / "manifest.json")
    asked = manifest["parameters"]
    asked["training"] |= {"lr": 0.1, "num_epochs": 20, "implementation": "scratch", "weight_decay": 0.5, "dropout": 0.0}
    asked["training"] |= {"device": "cuda"}
    asked["data"] |= {"min_level_rows": 3}
    seal(folder, manifest | {"parameters": asked | {"tuned": True}})
    capsys.readouterr()
    repeated = own_data.repeat_parameters("houses", {"data": {"source": "/data/houses.csv"}})
    said = capsys.readouterr().out
    assert said.count("implementation scratch, num epochs 20, lr 0.1, tuned of version 1 are ignored: tables are") == 1
    assert said.count("ignored") == 2
    assert "device cuda of version 1 is ignored: tables need no GPU" in said
    parameters = RetrainParameters.model_validate(repeated)
    assert parameters.training.given_values.keys() == {"model", "seed", "weight_decay", "defaults", "loss"} | {
        "class_weight", "shape"
    }  # fmt: skip
    assert parameters.training.weight_decay == 0.5
    assert not parameters.tuned
