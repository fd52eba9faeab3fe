"""The form of one deployment: without what can be of no use to its runs."""

from typing import Any, TypeVar

from pydantic import ValidationError, create_model

from tasks.parameters.runs import Learned
from tasks.parameters.uses import OF_MODEL

L = TypeVar("L", bound=Learned)


def narrowed_form(form: type[L], parameters: dict[str, Any]) -> type[L]:
    """What to ask for where ``parameters`` are a deployment's own: its model's, and of its kind of data.

    Own data may still be named where nothing says under which name the model is kept. Of parameters that somebody
    has set to what no run takes it is the form of all.
    """
    try:
        asked = form.model_validate(parameters)
    except ValidationError:
        return form
    uses = asked.uses if asked.data.is_own or parameters.get("name") else OF_MODEL[asked.training.model]
    fields: dict[str, Any] = {}
    for name in form.model_fields.keys() & {"training", "data", "gates"}:
        kind = type(getattr(asked, name))
        facts = {"shown_for": uses, "__module__": kind.__module__, "__doc__": kind.__doc__}
        part = type(name.capitalize(), (kind,), facts)
        fields[name] = (part, part())
    return create_model(form.__name__, __base__=form, **fields)
