"""What a search for hyperparameters takes."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.parameters.choices import Runner
from tasks.parameters.form import Frozen, Option, PositiveFloat
from tasks.parameters.runs import Learned, PositiveInt


class Search(Frozen):
    """How far to search, through what, and what runs the trials."""

    trials: Annotated[int, Field(ge=1, le=10_000)] = Field(32, title="Trials", description="Trainings to choose from.")
    timeout: Annotated[PositiveFloat | None, Option(empty="until all trials are done")] = Field(
        None,
        title="Timeout",
        description="Begin no epoch after so many seconds. A fifth is for the best two.",
    )
    space: Annotated[tuple[str, ...], Option(empty="what pays, by model and data")] = Field(
        (), title="Space", description="What to search: lr=0.05:1,epochs=10|20,dropout=0."
    )
    runner: Runner = Field(Runner.THREADS, title="Runner", description="What runs the trials.")
    dask_address: Annotated[str | None, Option(empty="a local one")] = Field(
        None, title="Dask scheduler", description="Scheduler of an existing Dask cluster."
    )
    workers: Annotated[PositiveInt | None, Option(empty="all cores of a local cluster")] = Field(
        None, title="Workers", description="Of Dask: so many trials at a time, at most four."
    )

    @model_validator(mode="after")
    def _options_fit_the_runner(self) -> Self:
        for name in ("dask_address", "workers"):
            if getattr(self, name) is not None and self.runner is not Runner.DASK:
                raise ValueError(f"--{name.replace('_', '-')} goes with --runner dask")
        return self


class TuneParameters(Learned):
    """Everything that one search needs to know; ``training`` is where it starts from."""

    search: Search = Field(Search(), title="Search")
    then_retrain: bool = Field(
        False, title="Then retrain", description="Use at once what was found, through the gates."
    )
    force: bool = Field(False, title="Force", description="Start afresh, whatever an earlier search has learned.")
