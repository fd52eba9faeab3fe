"""What own tables cannot be faster than: the calls of pyarrow, numpy and torch that the contract asks for, and no more.

The CSV is read; rows are encoded, hashed, sorted by digest and split; splits and digests are written under their
SHA-256; one pass of minibatches is taken. Nothing is checked, inferred, counted, reported or measured, and all that can
run beside another does.
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from numpy.typing import NDArray

from flows.bench import flights
from tasks.data.readers.delimited import LEVELS
from tasks.data.readers.text import PARSED_BYTES
from tasks.data.table import hashing
from tasks.fitting.rules import LARGEST_BATCH_SIZE
from tasks.machine import side_by_side
from tasks.networks.effects import gathered, gradient_of_gathered

BLOCK = hashing.BLOCK
RATE = 0.1  # whose result is not looked at
Array = NDArray[Any]


def seconds(csv: Path, folder: Path) -> float:
    """From the CSV to the weights."""
    begun = time.perf_counter()
    as_codes = pyarrow.csv.ConvertOptions(check_utf8=False, auto_dict_encode=True, auto_dict_max_cardinality=LEVELS)
    blocks = pyarrow.csv.ReadOptions(block_size=PARSED_BYTES)
    table = pyarrow.csv.read_csv(csv, blocks, convert_options=as_codes).unify_dictionaries()
    columns = [table[name] for name in sorted((*flights.CATEGORIES, *flights.NUMBERS))]
    features = np.empty((len(columns), len(table)), np.float32)
    side_by_side.each(lambda at: _encode(columns[at], features[at]), range(len(columns)))
    target, is_test = _codes(table[flights.TARGET]), _codes(table[flights.SPLIT]).astype(bool)
    digests = _digests(columns, features, (target, is_test))
    train, order = _written(folder, features, target, digests, is_test)
    _pass(train, order, [_num_levels(each) for each in columns])
    return time.perf_counter() - begun


def _num_levels(column: pa.ChunkedArray) -> int:
    return len(column.chunk(0).dictionary) if pa.types.is_dictionary(column.type) else 0


def _codes(column: pa.ChunkedArray) -> Array:
    return np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks]).astype(np.uint8)


def _encode(column: pa.ChunkedArray, into: Array) -> None:
    row = 0
    for chunk in column.chunks:
        into[row : row + len(chunk)] = (chunk.indices if _num_levels(column) else chunk).to_numpy(zero_copy_only=False)
        row += len(chunk)


def _digests(columns: list[pa.ChunkedArray], features: Array, others: tuple[Array, ...]) -> Array:
    """Row hashes that have absorbed the target, the side and the number of the copy."""
    words = [hashing.words_of_levels(c.chunk(0).dictionary.to_pylist()) if _num_levels(c) else None for c in columns]
    of_codes = hashing.words_of_levels(["no", "yes"])
    absorbed = [lambda rows, each=each: np.take(of_codes, each[rows]) for each in others]
    hashed = hashing.hashes(list(zip(features, words, strict=True)), features.shape[1])
    return hashing.after(hashed, [*absorbed, lambda _: np.uint64(0)])


def _written(
    folder: Path, features: Array, target: Array, digests: Array, is_test: Array
) -> tuple[tuple[Array, Array], torch.Tensor]:
    """Both splits and the sorted digests in files of their own; the training rows, and the order of the pass."""

    def split(name: str, is_mine: Array) -> tuple[Array, Array]:
        rows, labels = np.empty((int(is_mine.sum()), len(features)), np.float32), target[is_mine]
        done, file, sha256 = 0, (folder / name).open("wb", buffering=0), hashlib.sha256()
        for start in range(0, len(is_mine), BLOCK):
            part = slice(start, start + BLOCK)
            found = np.compress(is_mine[part], np.ascontiguousarray(features[:, part].T), axis=0)
            rows[done : done + len(found)] = found
            _append(file, sha256, found)
            done += len(found)
        _append(file, sha256, digests[is_mine], labels)
        return rows, labels

    def ordered() -> None:
        sides = digests[~is_test], digests[is_test]
        side_by_side.each(np.ndarray.sort, sides)
        _append((folder / "rows").open("wb", buffering=0), hashlib.sha256(), *sides)

    with ThreadPoolExecutor(3) as pool:
        train, test = pool.submit(split, "train", ~is_test), pool.submit(split, "test", is_test)
        sorting = pool.submit(ordered)
        order = torch.randperm(int((~is_test).sum()))
        test.result(), sorting.result()
        return train.result(), order


def _append(file: Any, sha256: Any, *arrays: Array) -> None:
    for array in arrays:
        sha256.update(array.reshape(-1).view(np.uint8).data)
        file.write(array.data)


def _pass(train: tuple[Array, Array], order: torch.Tensor, num_levels: list[int]) -> None:
    """One step of plain SGD for each minibatch, the next of which is made meanwhile."""
    rows, labels = train
    levels = torch.tensor([each for each in num_levels if each])
    firsts = (levels.cumsum(0) - levels).unsqueeze(1)
    categories = torch.tensor([at for at, each in enumerate(num_levels) if each])
    numbers = torch.tensor([at for at, each in enumerate(num_levels) if not each])
    weight, bias, effects = torch.zeros(len(numbers), 2), torch.zeros(2), torch.zeros(2, int(levels.sum())).T

    def minibatches() -> Iterator[tuple[torch.Tensor, ...]]:
        for part in order.split(LARGEST_BATCH_SIZE):
            columns = torch.from_numpy(np.take(rows, part.numpy(), axis=0)).T.contiguous()
            inputs, codes = columns.index_select(0, numbers), columns.index_select(0, categories)
            yield inputs, codes.long().add_(firsts).T, torch.from_numpy(labels[part.numpy()]).long()

    for inputs, slots, y in side_by_side.ahead(minibatches()):
        g = torch.softmax((weight.T @ inputs).T + bias + gathered(effects, slots), dim=1)
        g[:, 1] -= y
        g[:, 0] -= 1 - y
        g /= len(y)
        weight.sub_(inputs @ g, alpha=RATE)
        bias.sub_(g.sum(0), alpha=RATE)
        effects.sub_(gradient_of_gathered(g, effects, slots), alpha=RATE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, csv = map(Path, sys.argv[1:])
    seconds(flights.write(folder, 2000), folder)  # to have everything ready
    print(json.dumps({"seconds": seconds(csv, folder)}))
