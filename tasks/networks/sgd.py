"""Minibatch stochastic gradient descent from scratch (section 3.2.6), weight decay (4.5) and momentum (11.6)."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def rate(lr: float, device: torch.device) -> Tensor:
    """A learning rate that optimizers read at each step, without waiting for its device.

    ``torch.optim.SGD`` multiplies by a tensor only if that could have a gradient; of any other it reads the number.
    """
    return torch.tensor(lr, device=device, requires_grad=True)


class SGD:
    """What a training loop needs of ``torch.optim.SGD``, so that one loop serves both.

    ``groups`` are like torch's: dictionaries with ``params`` and, if they decay, ``weight_decay``; ``param_groups``
    lets a schedule set ``lr``, a number or a ``rate``. The book's ``sgd`` divides by the batch size; here the gradient
    is that of the mean loss already (see ``training``, "Sum or mean"). ``momentum`` is Nesterov's: the gradient is
    taken ahead.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.0) -> None:
        self._momentum = momentum
        self._velocities: dict[int, Tensor] = {}  # by the parameter's identity
        self.param_groups: list[dict[str, Any]] = [{"weight_decay": 0.0, "lr": lr} | group for group in groups]

    def step(self) -> None:
        """Move every parameter against its gradient, and by weight decay towards zero.

        None of them is autograd's, so that nothing has to be told not to record this.
        """
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    if group["weight_decay"]:
                        param.grad.add_(param, alpha=group["weight_decay"])
                    if self._momentum:
                        velocity = self._velocities.setdefault(id(param), torch.zeros_like(param))
                        velocity.mul_(self._momentum).add_(param.grad)
                        param.grad.add_(velocity, alpha=self._momentum)
                    if isinstance(group["lr"], Tensor):
                        param.addcmul_(param.grad, group["lr"].detach(), value=-1)
                    else:
                        param.sub_(param.grad, alpha=group["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None


class ConciseSGD(torch.optim.SGD):
    """``torch.optim.SGD``, but for what guards it against ``torch.compile``, whose import takes over two seconds.

    Nothing is compiled here. The methods are torch's own, as they are before those guards are put around them, and
    before those that tell a profiler of each call: these take longer than the step. Of the loops that ``step`` may take
    it is the plain one: of two parameters the others take longer to set up (``foreach``).
    """

    def __init__(self, params: Iterable[Any], **options: Any) -> None:
        super().__init__(params, foreach=False, **options)

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))
    step.hooked = True  # else torch wraps it, so that a profiler hears of it

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the last step."""
        del set_to_none  # always
        for group in self.param_groups:
            for param in group["params"]:
                param.grad = None


def decaying(params: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer in which the weights decay, but not the bias, which comes last (as in the book)."""
    if not weight_decay:
        return [{"params": params}]
    return [{"params": params[:-1], "weight_decay": weight_decay}, {"params": params[-1:]}]
