"""``python -m flows.bench.plain RAW FOLDER``: the work of a retrain's stages in plain torch, ONNX and pyarrow.

Nothing of ours is imported, nothing judged, kept for later runs or told to anybody. Writes the seconds that it took,
imports left out, to ``FOLDER/seconds``.
"""

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy
import torch
from matplotlib.figure import Figure
from onnx import TensorProto, helper, numpy_helper
from torch import nn

torch.set_num_threads(1)  # faster than two for products of this size
STRANGER = """
import sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.stdin.readline().strip())
for _ in range(200): session.run(None, {"images": numpy.zeros((1, 28, 28), numpy.uint8)})
"""


def arrays(raw: Path, folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read, check and prepare a split: images ``(n, 28, 28)`` uint8, labels ``(n,)`` int64."""
    found = {}
    for kind, skipped in (("images", 16), ("labels", 8)):
        (path,) = raw.glob(f"{split}-{kind}*")
        hashlib.sha256(content := path.read_bytes()).digest()
        found[kind] = np.frombuffer(content, np.uint8, offset=skipped)
    images = found["images"].reshape(-1, 28, 28)
    content = safetensors.numpy.save({"images": images, "labels": found["labels"]})
    hashlib.sha256(content).digest()
    (folder / f"{split}.safetensors").write_bytes(content)
    return torch.tensor(images), torch.from_numpy(found["labels"].astype(np.int64))


def train(
    X: torch.Tensor,  # noqa: N803  (the book's letters)
    y: torch.Tensor,
    test: tuple[torch.Tensor, torch.Tensor],
) -> tuple[nn.Linear, list[tuple[float, float, float]]]:
    """The book's concise softmax regression, both splits measured every epoch: loss, accuracy, test accuracy."""
    torch.manual_seed(0)
    net, loss = nn.Linear(784, 10), nn.CrossEntropyLoss()
    params, curve = [*net.parameters()], []
    inputs = torch.empty(256, 784)  # one memory, which stays in the cache
    for _ in range(10):
        order, outputs = torch.randperm(len(X)), []
        for several in order.split(8 * 256):
            for pixels, labels in zip(X.index_select(0, several).split(256), y[several].split(256), strict=True):
                o = net(inputs[: len(labels)].copy_(pixels.flatten(1)).mul_(1 / 255))
                loss(o, labels).backward()
                descend(params)
                outputs.append(o.detach())
        seen, truth, answers = torch.cat(outputs), y[order], scores(net, test[0])
        curve.append((loss(seen, truth).item(), share(seen, truth), share(answers, test[1])))
    return net, curve


@torch.no_grad()
def descend(params: list[nn.Parameter]) -> None:
    """As ``torch.optim.SGD`` does, whose first step imports a compiler for a second."""
    for param in params:
        if param.grad is not None:
            param.sub_(param.grad, alpha=0.1)
            param.grad = None


def share(o: torch.Tensor, y: torch.Tensor) -> float:
    """The accuracy."""
    return (o.argmax(1) == y).float().mean().item()


@torch.no_grad()
def scores(net: nn.Linear, images: torch.Tensor) -> torch.Tensor:
    """``(n, 10)``."""
    return torch.cat([net(piece.flatten(1) / 255) for piece in images.split(1024)])


def draw(path: Path, kind: str, what: Any) -> None:
    """A picture as the stages draw it: curves, a matrix with its counts, bars, or images side by side."""
    figure = Figure(figsize=(6.4, 5), layout="constrained" if kind == "matrix" else None)
    axes = figure.subplots()
    if kind == "curves":
        axes.plot(what)
    elif kind == "bars":
        axes.bar(range(len(what)), what)
    else:
        axes.imshow(what)
    if kind == "matrix":
        for (row, column), count in np.ndenumerate(what):
            axes.text(column, row, str(count), ha="center", va="center", in_layout=False)
    figure.savefig(path, dpi=110)


def export(net: nn.Linear, path: Path) -> onnxruntime.InferenceSession:
    """One ONNX file from raw images to probabilities and label, checked."""
    weights = {"W": net.weight.detach().numpy().T / np.float32(255), "b": net.bias.detach().numpy()}
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["X"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["X", "W", "b"], ["o"]),
        helper.make_node("Softmax", ["o"], ["probabilities"]),
        helper.make_node("ArgMax", ["o"], ["label"], axis=1, keepdims=0),
    ]
    of = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "softmax",
        [of("images", TensorProto.UINT8, ["batch", 28, 28])],
        [of("probabilities", TensorProto.FLOAT, ["batch", 10]), of("label", TensorProto.INT64, ["batch"])],
        [numpy_helper.from_array(np.ascontiguousarray(each), name) for name, each in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return onnxruntime.InferenceSession(path)


def main(raw: Path, folder: Path) -> None:
    """All of it, in the stages' order."""
    X, y = arrays(raw, folder, "train")  # noqa: N806
    images, labels = arrays(raw, folder, "t10k")
    net, curve = train(X, y, (images, labels))
    draw(folder / "curve.png", "curves", np.array(curve))
    o = scores(net, images)
    confidence, label = o.softmax(1).max(1)
    draw(folder / "matrix.png", "matrix", torch.bincount(labels * 10 + label, minlength=100).view(10, 10).numpy())
    draw(folder / "calibration.png", "bars", np.histogram(confidence.numpy(), 15)[0])
    wrong = (label != labels).nonzero().flatten()[:18]
    draw(folder / "wrong.png", "images", torch.hstack(list(images[wrong])).numpy())
    with subprocess.Popen([sys.executable, "-Ic", STRANGER], stdin=subprocess.PIPE, text=True) as stranger:
        session = export(net, folder / "model.onnx")
        probabilities, answer = session.run(None, {"images": images.numpy()})
        np.abs(probabilities - scores(net, images).softmax(1).numpy()).max()
        stranger.communicate(str(folder / "model.onnx"))
    columns = {f"probability_{index}": each for index, each in enumerate(probabilities.T)}
    table = pa.table({"row": np.arange(len(answer)), "label": answer, **columns})
    pq.write_table(table, folder / "part.parquet", compression="none")
    draw(folder / "predicted.png", "images", torch.hstack(list(images[:18])).numpy())


if __name__ == "__main__":
    begun = time.perf_counter()
    main(*map(Path, sys.argv[1:]))
    Path(sys.argv[2], "seconds").write_text(str(time.perf_counter() - begun))
