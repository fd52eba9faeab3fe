"""What a network has learned, as it is kept."""

from torch import Tensor

from tasks.errors import TrainingDiverged
from tasks.fitting.learning import Learning


def learned(learning: Learning) -> dict[str, Tensor]:
    """The weights in float32 on the CPU, without the effects of unknown codes.

    Raises:
        TrainingDiverged: one of them is not a finite number, though the loss in float64 was.
    """
    weights = {name: each.cpu().float().contiguous() for name, each in learning.net.weights().items()}
    if "effects" in weights:
        weights["effects"] = weights["effects"][: learning.num_slots].clone()
    if not all(each.isfinite().all() for each in weights.values()):
        raise TrainingDiverged(
            f"weights beyond the range of float32 at lr {learning.training.steps.lr}",
            "finite weights",
            "use a smaller --lr",
        )
    return weights
