"""Small images with labels, and the randomness that networks start with."""

import torch

from tasks.networks.examples import Split

IMAGES = Split(
    torch.randint(0, 256, (500, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)),
    torch.randint(0, 5, (500,), generator=torch.Generator().manual_seed(2)),
    scale=1 / 255,
)


def minibatch(split: Split, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Inputs as a network sees them, truth and extras of the examples at ``index``."""
    X = split.X[index]
    return (
        X if X.is_floating_point() else X.float() * split.scale,
        split.y[index],
        *(each[index] for each in split.extras),
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
