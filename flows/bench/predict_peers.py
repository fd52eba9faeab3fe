"""What batch prediction is compared with: a loop with nothing but ``session.run``, and the book's way."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from flows.bench import measure

BOOK_BATCH, BOOK_WORKERS = 256, 4  # section 3.5 of d2l 0.17: batch_size, get_dataloader_workers
Images = NDArray[np.uint8]


def bare(sessions: list[Any], rows: NDArray[Any], batch: int, name: str = "images") -> Callable[[], float]:
    """A loop with nothing but ``session.run``, on equal shares of the rows, which are the input ``name``."""
    shares = np.array_split(rows, len(sessions))

    def loop(session: Any, share: NDArray[Any]) -> None:
        for start in range(0, len(share), batch):
            session.run(None, {name: share[start : start + batch]})

    def rate() -> float:
        with ThreadPoolExecutor(len(sessions)) as pool:
            return len(rows) / measure.seconds(lambda: list(pool.map(loop, sessions, shares)))

    return rate


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's datasets give them: a PIL image, made a tensor one by one."""

    def __init__(self, images: Images) -> None:
        self._images, self._to_tensor = images, transforms.ToTensor()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        tensor: torch.Tensor = self._to_tensor(Image.fromarray(self._images[index]))
        return tensor, 0


def book(model: bytes, images: Images) -> Callable[[], float]:
    """Sections 3.5 and 3.7 of d2l 0.17: a DataLoader over single images, ``net(X).argmax`` batch by batch."""
    initializers = {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(model).graph.initializer}
    weights = next(each for each in initializers.values() if each.ndim == 2)
    linear = nn.Linear(*weights.shape)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights.T * 255))
    net = nn.Sequential(nn.Flatten(), linear)

    def rate() -> float:
        warnings.filterwarnings("ignore", "This DataLoader will create 4 worker processes")  # as the book does
        loader = DataLoader(_Pictures(images), BOOK_BATCH, shuffle=False, num_workers=BOOK_WORKERS)
        with torch.no_grad():
            return len(images) / measure.seconds(lambda: [net(X).argmax(dim=1) for X, _ in loader])

    return rate
