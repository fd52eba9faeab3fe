"""An epoch on a GPU without a single launch from Python: its steps are captured once and replayed with a new order.

docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs", "Whole-network capture".
"""

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.training import Network, Optimizer, take_steps


class GraphedEpochs:
    """Takes the place of ``train_epoch``. The learning rate is part of the graph: another one is captured anew."""

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._graph = torch.cuda.CUDAGraph()
        self._order = self._seen = torch.empty(0)

    def __call__(
        self, net: Network, optimizer: Optimizer, split: Examples, order: Tensor, batch_size: int
    ) -> dict[str, float]:
        """Take the steps of one epoch; return what ``net.measure`` says of the outputs that they saw."""
        rates = [group["lr"] for group in optimizer.param_groups]
        if rates != self._rates:
            self._capture(net, optimizer, split, order, batch_size)
            self._rates = rates
        self._order.copy_(order)
        self._graph.replay()
        return net.measure(self._seen, split.y.index_select(0, order))

    def _capture(self, net: Network, optimizer: Optimizer, split: Examples, order: Tensor, batch_size: int) -> None:
        self._order = order.clone()
        before = [param.detach().clone() for param in net.parameters()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up at their first calls, which no graph may hold
            take_steps(net, optimizer, split, self._order[: 3 * batch_size], batch_size)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.no_grad():
            for param, value in zip(net.parameters(), before, strict=True):
                param.copy_(value)
        optimizer.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._seen = take_steps(net, optimizer, split, self._order, batch_size)
