"""What a parameter is for: a model of the book, on the book's data or on own tables or images."""

from typing import Literal, NamedTuple

from tasks.parameters.choices import ModelName


class Use(NamedTuple):
    """A model, and what it learns from."""

    model: ModelName
    data: Literal["book", "table", "images"]


Uses = frozenset[Use]
SOFTMAX = Uses(Use(ModelName.SOFTMAX_REGRESSION, data) for data in ("book", "table", "images"))
LINEAR = Uses(Use(ModelName.LINEAR_REGRESSION, data) for data in ("book", "table"))
OF_MODEL = {ModelName.SOFTMAX_REGRESSION: SOFTMAX, ModelName.LINEAR_REGRESSION: LINEAR}
EVERY = SOFTMAX | LINEAR
BOOK, TABLES, IMAGES = (Uses(each for each in EVERY if each.data == data) for data in ("book", "table", "images"))
OWN = TABLES | IMAGES

_MODELS = {SOFTMAX: "softmax regression", LINEAR: "linear regression"}
_DATA = {BOOK: "the book's data", OWN: "own data", TABLES: "own tables", IMAGES: "own images"}
WORDS: dict[Uses, str] = {
    **{model | data: f"{_MODELS[model]} or {_DATA[data]}" for model in _MODELS for data in _DATA},
    **{model & data: f"{_MODELS[model]} on {_DATA[data]}" for model in _MODELS for data in _DATA},
    **_MODELS,
    **_DATA,
}
