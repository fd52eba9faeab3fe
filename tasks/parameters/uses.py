"""What a parameter is for: a model of the book, on the book's data or on own data."""

from typing import NamedTuple

from tasks.parameters.choices import ModelName


class Use(NamedTuple):
    """A model and whether own data are what it learns from."""

    model: ModelName
    own_data: bool


Uses = frozenset[Use]
SOFTMAX, LINEAR = (frozenset(Use(model, own_data) for own_data in (False, True)) for model in ModelName)
BOOK, OWN = (frozenset(Use(model, own_data) for model in ModelName) for own_data in (False, True))
EVERY = BOOK | OWN

_MODELS = {SOFTMAX: "softmax regression", LINEAR: "linear regression"}
_DATA = {BOOK: "the book's data", OWN: "own data"}
WORDS: dict[Uses, str] = {
    **_MODELS,
    **_DATA,
    **{model & data: f"{_MODELS[model]} on {_DATA[data]}" for model in _MODELS for data in _DATA},
    **{model | data: f"{_MODELS[model]} or {_DATA[data]}" for model in _MODELS for data in _DATA},
}
