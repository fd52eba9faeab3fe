"""The bounds of the gates."""

from typing import Annotated

from pydantic import Field

from tasks.parameters.form import Frozen, Option, PositiveFloat, Share

Limit = Annotated[PositiveFloat | None, Option(empty="recorded only")]
Ratio = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Gates(Frozen):
    """Bounds that a candidate must keep to be published (the book's assertions by default)."""

    max_train_loss: PositiveFloat = Field(0.5, title="Train loss below", description="Of softmax regression.")
    min_train_accuracy: Share = Field(0.7, title="Train accuracy above", description="Of softmax regression.")
    min_test_accuracy: Share = Field(0.7, title="Test accuracy above", description="Of softmax regression.")
    max_loss_ratio: Ratio = Field(
        1.05,
        title="Test loss over reference",
        description="Linear regression and own tables: at most this many times that of the converged fit.",
    )
    max_standardised_error: PositiveFloat = Field(
        1e-3,
        title="Error allowance",
        description="Added to that bound: the loss of this error, in target deviations.",
    )
    min_gain: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0,
        title="Gain over the best constant",
        description="Own data: the lower 95 % bound of the gain in test loss is above this.",
    )
    max_parameter_error: PositiveFloat = Field(
        0.02,
        title="Parameter error",
        description="Linear regression: distance from the truth of synthetic data.",
    )
    max_accuracy_drop: Share = Field(0.005, title="Accuracy drop", description="Against any kept version.")
    max_recall_drop: Share = Field(0.10, title="Recall drop", description="Of any class, against any kept version.")
    max_drop_p: Share = Field(
        0.05,
        title="Drop p",
        description="A larger drop is refused if its p, corrected for versions and classes, is smaller than this.",
    )
    max_loss_rise: Ratio = Field(
        1.05, title="Loss rise", description="The book's linear regression: test loss over the best kept version's."
    )
    max_nats_rise: PositiveFloat = Field(
        0.005, title="Log loss rise", description="Classifiers of own data: against any kept version, in nats."
    )
    max_error_rise: Ratio = Field(
        1.01, title="Error rise", description="Regressions on own data: test loss over any kept version's."
    )
    max_latency_ms: Limit = Field(None, title="Latency limit", description="95th percentile for one row, milliseconds.")
    max_memory_mb: Limit = Field(None, title="Memory limit", description="Peak of the serving process, MiB.")
    max_parity_error: PositiveFloat = Field(
        1e-5, title="Parity", description="Largest difference between torch and onnxruntime (README, Gates)."
    )
