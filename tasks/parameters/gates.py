"""The bounds of the gates."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.form import Frozen, Option, PositiveFloat, Share
from tasks.parameters.uses import BOOK, LINEAR, OWN, SOFTMAX, TABLES

Limit = Annotated[PositiveFloat | None, Option(empty="recorded only")]
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]
OF_IMAGES = Option(of=SOFTMAX & BOOK)


class Gates(Frozen):
    """Bounds that a candidate must keep to be published (the book's assertions by default)."""

    max_train_loss: Annotated[PositiveFloat, OF_IMAGES] = Field(0.5, title="Train loss below")
    min_train_accuracy: Annotated[Share, OF_IMAGES] = Field(0.7, title="Train accuracy above")
    min_test_accuracy: Annotated[Share, OF_IMAGES] = Field(0.7, title="Test accuracy above")
    max_loss_ratio: Annotated[Ratio, Option(of=LINEAR & BOOK)] = Field(
        1.05, title="Test loss over the best fit", description="At most this many times that of the converged fit."
    )
    min_reference_gain: Annotated[Share, Option(of=TABLES)] = Field(
        0.95,
        title="Share of the attainable gain",
        description="Of what the converged fit gains in test loss over the best constant, at least this share.",
    )
    max_standardised_error: Annotated[PositiveFloat, Option(of=LINEAR)] = Field(
        1e-3,
        title="Error allowance",
        description="Added to these bounds: the loss of this error, in target deviations.",
    )
    min_gain: Annotated[float, Field(allow_inf_nan=False), Option(of=OWN)] = Field(
        0.0,
        title="Gain over the best constant",
        description="The lower 95 % bound of the gain in test loss is above this.",
    )
    max_parameter_error: Annotated[PositiveFloat, Option(of=LINEAR & BOOK)] = Field(
        0.02, title="Parameter error", description="Distance from the truth of synthetic data."
    )
    max_accuracy_drop: Annotated[Share, OF_IMAGES] = Field(
        0.005, title="Accuracy drop", description="Against any kept version."
    )
    max_recall_drop: Annotated[Share, OF_IMAGES] = Field(
        0.10, title="Recall drop", description="Of any class, against any kept version."
    )
    max_drop_p: Annotated[Share, Option(of=SOFTMAX | OWN)] = Field(
        0.05,
        title="Drop p",
        description="A larger drop is refused if its p, corrected for versions and classes, is smaller than this.",
    )
    max_loss_rise: Annotated[Ratio, Option(of=LINEAR & BOOK)] = Field(
        1.05, title="Loss rise", description="Test loss over the best kept version's."
    )
    max_nats_rise: Annotated[PositiveFloat, Option(of=SOFTMAX & OWN)] = Field(
        0.005, title="Log loss rise", description="Against any kept version, in nats."
    )
    max_error_rise: Annotated[Ratio, Option(of=LINEAR & OWN)] = Field(
        1.01, title="Error rise", description="Test loss over any kept version's."
    )
    max_latency_ms: Limit = Field(None, title="Latency limit", description="95th percentile for one row, milliseconds.")
    max_memory_mb: Limit = Field(None, title="Memory limit", description="Peak of the serving process, MiB.")
    max_parity_error: PositiveFloat = Field(
        1e-5, title="Parity", description="Largest difference between torch and onnxruntime (docs/gates.md)."
    )
