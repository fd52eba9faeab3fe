"""The model card of own images: classes, size, and how a photograph becomes an input."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.data.io import pictures
from tasks.parameters import Training
from tasks.serving import contract
from tasks.serving.contract import Signature, Tensor
from tasks.serving.task import TASKS
from tasks.store.version_page import describe_version, render_card


def card(
    names: tuple[str, ...] = ("cat", "dog|$"),
    shape: tuple[int, ...] = (30, 20),
    **metrics: Any,
) -> str:
    dataset = {
        "title": "pets", "identifier": "pets", "digest": "0" * 64, "task": "classification",
        "class_names": names, "class_counts": [100 + at for at in range(len(names))],
        "num_train": 1234, "num_test": 300, "split": {"rule": "rows", "test": 0.2},
    }  # fmt: skip
    recall = {name: 1 - at / 1000 for at, name in enumerate(names)}
    found: dict[str, Any] = {"train_loss": 0.5, "test_loss": 0.6, "test_accuracy": 0.9}
    found |= {"objective_loss": 0.6, "baseline_loss": 1.5, "precision": dict.fromkeys(names, 0.5), "recall": recall}
    manifest = {
        "name": "pets", "version": 3, "dataset": dataset, "device": "cpu", "gates": [],
        "recipe": {"kind": "pixels", "shape": shape, "scale": 1 / 255}, "metrics": found | metrics,
        "parameters": {"training": Training().model_dump(mode="json")},
        "trained": {"num_examples": 1234, "num_validation": 0, "num_epochs": 10, "collinear": []},
    }  # fmt: skip
    images = Tensor(name="images", dtype="uint8", shape=shape)
    signature = Signature(inputs=(images,), outputs=TASKS["classification"].outputs(len(names)))
    described = contract.open_inference_metadata("pets", 3, signature)
    return render_card(describe_version(manifest, described, {"class-weights.png": b""}), manifest)


def test_it_says_size_channels_split_and_every_class_in_the_order_of_labels() -> None:
    lines = card().splitlines()
    for line in (
        "pipeline_tag: image-classification",
        "| size | 30 by 20 pixels, height by width |",
        "| channels | grey: 0.299 red + 0.587 green + 0.114 blue |",
        "| split | 1,234 for training, 300 for the test, by a hash of their pixels |",
        "| 0 | cat | 100 | 0.500 | 1.000 |  |",
        r"| 1 | dog\|\$ | 101 | 0.500 | 0.999 |  |",
        "| baseline | 1.5 |",
        "![Weights of each class](class-weights.png)",
    ):
        assert line in lines, line
    assert "| reference |" not in card()
    assert "| channels | RGB |" in card(shape=(30, 20, 3)).splitlines()


def test_of_very_many_classes_those_with_the_smallest_recall_are_told() -> None:
    names = tuple(f"class {number}" for number in range(1000))
    told = re.findall(r"^\| (\d+) \| class", card(names), re.MULTILINE)
    assert told == [str(number) for number in range(999, 949, -1)]
    assert "The 50 of 1000 classes with the smallest recall; `labels.txt` has all" in card(names)


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 3)])
def test_its_lines_make_of_a_photograph_what_prediction_makes_of_it(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies on its side, as telephones write them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
    photo.save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(import numpy\nfrom PIL.*?)```", card(shape=shape), re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines, found)  # noqa: S102  (what a reader would do)
    expected, _ = pictures.decode(tmp_path / "photo.jpg", shape)
    assert found["images"].dtype == np.uint8
    np.testing.assert_array_equal(found["images"], expected[None])
