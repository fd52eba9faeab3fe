"""The form of one deployment: without what can be of no use to its runs."""

from typing import Any

from pydantic import ValidationError, create_model

from tasks.parameters.choices import ModelName
from tasks.parameters.runs import RetrainParameters
from tasks.parameters.uses import BOOK, LINEAR, OWN, SOFTMAX

OF_MODEL = dict(zip(ModelName, (SOFTMAX, LINEAR), strict=True))


def retrain_form(parameters: dict[str, Any]) -> type[RetrainParameters]:
    """What to ask for where ``parameters`` are a deployment's own: its model's, and of its kind of data.

    Own data may still be named where nothing says under which name the model is kept. Of parameters that somebody
    has set to what no run takes it is the form of all.
    """
    try:
        asked = RetrainParameters.model_validate(parameters)
    except ValidationError:
        return RetrainParameters
    data = OWN if asked.data.is_own else BOOK if parameters.get("name") else BOOK | OWN
    uses = OF_MODEL[asked.training.model] & data
    fields: dict[str, Any] = {}
    for name in ("training", "data", "gates"):
        kind = type(getattr(asked, name))
        part = type(name.capitalize(), (kind,), {"uses": uses, "__module__": kind.__module__, "__doc__": kind.__doc__})
        fields[name] = (part, part())
    return create_model(RetrainParameters.__name__, __base__=RetrainParameters, **fields)
