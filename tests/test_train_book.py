"""The book's four systems learn what they learned at c692a25, bit for bit, on the same machine and torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

BEFORE = "c692a25"
CASES = [
    {"model": "linear-regression", "implementation": "scratch"},
    {"model": "linear-regression", "implementation": "concise"},
    {"model": "linear-regression", "implementation": "scratch", "loss": "huber", "weight_decay": 0.01},
    {"model": "linear-regression", "implementation": "concise", "loss": "huber", "weight_decay": 0.01},
    {"model": "softmax-regression", "implementation": "scratch"},
    {"model": "softmax-regression", "implementation": "concise"},
    {"model": "softmax-regression", "implementation": "scratch", "dropout": 0.2, "weight_decay": 0.01},
    {"model": "softmax-regression", "implementation": "concise", "dropout": 0.2, "weight_decay": 0.01},
]
LEARN = """
import hashlib, json, sys
from types import SimpleNamespace as Facts
import torch
from tasks.networks.examples import Split
from tasks.parameters import RetrainParameters
try:
    from tasks.fitting.trainer import Parts, Trainer
except ImportError:  # of before
    Trainer = None
    from tasks.fitting.building import build
    from tasks.fitting.learning import Parts, epochs

torch.set_num_threads(1)
cpu, digests = torch.device("cpu"), []
for asked in json.loads(sys.argv[1]):
    drawn = torch.Generator().manual_seed(1)
    if asked["model"] == "linear-regression":
        X = torch.randn(1000, 2, generator=drawn)
        split, classes = Split(X, X @ torch.tensor([2.0, -3.4]) + 4.2), ()
    else:
        X = torch.randint(0, 256, (1000, 12, 12), dtype=torch.uint8, generator=drawn)
        split = Split(X, torch.randint(0, 10, (1000,), generator=drawn), 1 / 255)
        classes = tuple("0123456789")
    recipe = Facts(input=Facts(shape=X.shape[1:]), target_scaling=Facts(scale=1.0))
    facts = Facts(recipe=recipe, class_names=classes, class_counts=(), num_train=1000, is_own=False,
                  task="classification" if classes else "regression")
    training = RetrainParameters.model_validate({"training": asked}).training
    generator = torch.Generator().manual_seed(42)
    torch.manual_seed(42)
    if Trainer:
        fit = Trainer(training, facts, cpu).start(Parts(split, None, split), generator)
        net, each = fit.net, fit.epochs
    else:
        net, optimizer = build(training, facts, generator, cpu)
        each = epochs(net, optimizer, Parts(split, None, split), training, generator)
    for _ in each:
        pass
    weights = net.weights()
    learned = b"".join(weights[name].contiguous().numpy().tobytes() for name in ("W", "b"))
    digests.append(hashlib.sha256(learned).hexdigest())
print(json.dumps(digests))
"""


def learn(tree: Path) -> list[str]:
    """The digest of the weights of each case, by the code in a folder."""
    here = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LEARN, json.dumps(CASES)]
    done = subprocess.run(command, env=here, cwd=tree, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    digests: list[str] = json.loads(done.stdout)
    return digests


@pytest.mark.slow
def test_the_weights_of_the_books_systems_are_those_of_c692a25_to_the_last_bit(tmp_path: Path) -> None:
    packed = subprocess.run(["git", "archive", BEFORE, "tasks"], cwd=REPOSITORY, capture_output=True)
    if packed.returncode:
        pytest.skip(f"commit {BEFORE} is not in this clone: {packed.stderr.decode().strip()}")
    subprocess.run(["tar", "x", "-C", str(tmp_path)], input=packed.stdout, check=True)
    digests = learn(REPOSITORY)
    assert digests == learn(tmp_path)
    assert len(set(digests)) >= len(CASES) - 1, "of Huber's loss scratch and concise are equal, too"
