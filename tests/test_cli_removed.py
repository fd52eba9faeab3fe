"""What was removed is named with what to use instead, wherever it is typed or still stored."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from command_line import answer, refused
from flows.cli import removed
from flows.server.deployments import FORMS, describe_form, merge_parameters
from tasks.errors import UsageError

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
