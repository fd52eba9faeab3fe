"""What the judgement of a kept version takes."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.parameters.addresses import has_credentials
from tasks.parameters.choices import NAME_PATTERN, ModelName
from tasks.parameters.form import Frozen, Option, Share
from tasks.parameters.runs import PositiveInt


class EvaluateParameters(Frozen):
    """Everything that one judgement of a kept version on labelled rows needs to know."""

    name: Annotated[str, Option("NAME")] = Field(
        ModelName.SOFTMAX_REGRESSION.value, pattern=NAME_PATTERN, title="Model name", description="Which model."
    )
    data: Annotated[str | None, Option("DATA", empty="the version's own test split")] = Field(
        None,
        min_length=1,
        title="Data",
        description="Labelled rows: a file, folder, glob or URL of a table with the target's column; or images, a "
        "folder for each class or files of arrays.",
    )
    version: Annotated[PositiveInt | None, Option(empty="the champion")] = Field(None, title="Version")
    time_column: Annotated[str | None, Option(empty="that of the version's split, if it has one")] = Field(
        None, title="Time column", description="Of a table: figures are told by its periods, too."
    )
    unseen: bool = Field(False, title="Unseen rows only", description="Leave out rows that the version was trained on.")
    max_rejects: Share = Field(0.01, title="Rejected images", description="The share of images that may be broken.")

    @model_validator(mode="after")
    def _keeps_no_secret(self) -> Self:
        if self.data is not None and has_credentials(self.data):
            raise ValueError("a URL with credentials would be written down: set them in the environment")
        return self
