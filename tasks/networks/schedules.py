"""Learning rates, one an epoch, from ``torch.optim.lr_scheduler`` (section 11.11)."""

from collections.abc import Iterator

import torch
from torch.optim import lr_scheduler

from tasks.networks.sgd import ConciseSGD


def learning_rates(schedule: str, lr: float, num_epochs: int) -> Iterator[float]:
    """The learning rate of every epoch: ``constant``, ``cosine`` (from ``lr`` towards 0) or ``step`` (by tenths).

    torch's schedulers insist on torch's optimizers, so one of those is led through the epochs here; what it says
    serves every optimizer. It is asked epoch by epoch: of thousands that are allowed, most may not be needed.
    """
    optimizer = ConciseSGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedulers = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_epochs),
        "step": lambda: lr_scheduler.StepLR(optimizer, step_size=max(1, num_epochs // 4)),
    }
    scheduler = schedulers[schedule]()
    for _ in range(num_epochs):
        yield float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
