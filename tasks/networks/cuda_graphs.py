"""An epoch on a GPU without a single launch from Python: its steps are captured once and replayed with a new order.

docs.pytorch.org/docs/stable/notes/cuda.html, "CUDA Graphs", "Whole-network capture".
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from tasks.networks.examples import Examples
from tasks.networks.sgd import rate
from tasks.networks.training import Network, Optimizer, take_steps


class GraphedEpochs:
    """Takes the place of ``train_epoch``, with one network, optimizer and split.

    Order and learning rate are tensors that the graph reads, so that a schedule needs no other graph.
    """

    def __init__(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._order = self._rate = self._seen = torch.empty(0)

    def __call__(
        self, net: Network, optimizer: Optimizer, split: Examples, parts: Iterable[Tensor], batch_size: int
    ) -> dict[str, Tensor]:
        """Take the steps of one epoch; return what ``net.measure`` says of the outputs that they saw."""
        order = torch.cat(list(parts)).to(split.device)
        (lr,) = {group["lr"] for group in optimizer.param_groups}
        if self._graph is None:
            self._order, self._rate = order.to(torch.int64, copy=True), rate(lr, order.device)
            self._graph = self._captured(net, optimizer, split, batch_size)
        self._order.copy_(order)
        with torch.no_grad():
            self._rate.fill_(lr)
        self._graph.replay()
        return net.measure(self._seen, split.y.index_select(0, self._order))

    def _captured(self, net: Network, optimizer: Optimizer, split: Examples, batch_size: int) -> torch.cuda.CUDAGraph:
        for group in optimizer.param_groups:
            group["lr"] = self._rate
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
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._seen = take_steps(net, optimizer, split, self._order, batch_size)
        return graph
