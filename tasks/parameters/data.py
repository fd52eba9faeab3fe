"""What to train on, as a flow takes it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.parameters.form import Option, PositiveFloat
from tasks.parameters.own_data import OwnData
from tasks.parameters.uses import BOOK, LINEAR, SOFTMAX, TABLES

SYNTHETIC = Option(of=LINEAR & BOOK)


class Data(OwnData):
    """What to train on: the book's data, or own ones."""

    resize: Annotated[int | None, Option(empty="28 as they are", of=SOFTMAX & BOOK)] = Field(
        None, ge=4, le=256, title="Resize", description="Side of the square images in pixels."
    )
    synthetic_w: Annotated[
        tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
        Option(help="True weights of the synthetic data.", of=LINEAR & BOOK),
    ] = Field((2.0, -3.4), min_length=1, title="True weights", description="Of the synthetic data.")
    synthetic_b: Annotated[float, SYNTHETIC] = Field(
        4.2, allow_inf_nan=False, title="True bias", description="Of the synthetic data."
    )
    synthetic_noise: Annotated[PositiveFloat, SYNTHETIC] = Field(
        0.01, title="Noise", description="Standard deviation of the synthetic target's noise."
    )
    num_examples: Annotated[int, SYNTHETIC] = Field(
        1000, ge=10, le=10_000_000, title="Synthetic examples", description="In each split."
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        """Options of own data, or options of the book's."""
        given = set(self.model_dump(exclude_defaults=True))
        if self.source is None and (alone := sorted(given & set(OwnData.model_fields))):
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in alone)
            raise ValueError(f"options of own data ({flags}) go with --data")
        if self.is_images and (found := self.given(TABLES)):
            raise ValueError(f"{found}: for tables, which have a --target; images have none")
        if self.source is not None and (others := given - set(OwnData.model_fields)):
            raise ValueError(f"{' and '.join(sorted(others))} are for the book's data")
        return self
