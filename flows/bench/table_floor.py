"""Beside own tables: the calls of pyarrow, numpy and torch that the contract asks of every row, and no more.

The CSV is read; rows are encoded, hashed, sorted by digest and split, and those that are there twice are found; levels
are counted and ranges found, of all rows and of the training part; splits, digests and the test rows with all digits
are written under their SHA-256; one pass of minibatches is taken, and the test rows' loss is found once. No kinds are
inferred, no histograms, leaks or reports made, nothing is whitened or averaged, and all that can run beside another
does.
"""

import hashlib
import itertools
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
from tasks.data import row_hash, statistics
from tasks.data.io.tabular import MAX_LEVELS, PARSED_BYTES, read_blocks
from tasks.data.levels import count_codes
from tasks.data.statistics import Encoded
from tasks.fitting import rules
from tasks.machine import side_by_side
from tasks.networks.effects import gathered, gradient_of_gathered

BLOCK = row_hash.BLOCK
TOGETHER = 4  # minibatches
RATE = 0.1  # whose result is not looked at
Array = NDArray[Any]


def seconds(csv: Path, folder: Path) -> float:
    """From the CSV to the weights."""
    begun = time.perf_counter()
    with csv.open("rb", buffering=0) as file:
        table = pa.concat_tables(side_by_side.ahead(_tables(file))).unify_dictionaries()
    columns = [table[name] for name in sorted((*flights.CATEGORIES, *flights.NUMBERS))]
    num_levels = [_num_levels(each) for each in columns]
    features = Encoded(tuple(side_by_side.each(_encoded, columns)), tuple(each or None for each in num_levels))
    target, is_test = _codes(table[flights.TARGET]), _codes(table[flights.SPLIT]).astype(bool)
    _look(features)
    contents, digests = _digests(columns, features, (target, is_test))
    train, test, order = _written(folder, columns, features, target, (digests, contents), is_test)
    statistics.measure_columns(features.missing, len(train[0]), lambda rows: train[0][rows].T)
    _pass(train, test, order, num_levels)
    return time.perf_counter() - begun


def _tables(file: Any) -> Iterator[pa.Table]:
    """The rows of the CSV, block by block."""
    as_codes = pyarrow.csv.ConvertOptions(check_utf8=False, auto_dict_encode=True, auto_dict_max_cardinality=MAX_LEVELS)
    names: list[str] = []
    for block in read_blocks(file, file.name):
        options = pyarrow.csv.ReadOptions(block_size=PARSED_BYTES, column_names=names or None)
        table = pyarrow.csv.read_csv(pa.BufferReader(pa.py_buffer(block)), options, convert_options=as_codes)
        names = table.column_names
        yield table


def _num_levels(column: pa.ChunkedArray) -> int:
    return len(column.chunk(0).dictionary) if pa.types.is_dictionary(column.type) else 0


def _codes(column: pa.ChunkedArray) -> Array:
    return np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks]).astype(np.uint8)


def _encoded(column: pa.ChunkedArray) -> Array:
    levels, row = _num_levels(column), 0
    made: Array = np.empty(len(column), np.min_scalar_type(levels) if levels else np.float32)
    for chunk in column.chunks:
        made[row : row + len(chunk)] = (chunk.indices if levels else chunk).to_numpy(zero_copy_only=False)
        row += len(chunk)
    return made


def _look(features: Encoded) -> None:
    """Each level's rows, and of numbers the least, the largest and how many are missing."""

    def look(at: int) -> object:
        values, levels = features.values[at], features.missing[at]
        if levels:
            return count_codes(values, levels)
        return values.min(), values.max(), np.isnan(values).sum()

    side_by_side.each(look, range(len(features.values)))


def _digests(columns: list[pa.ChunkedArray], features: Encoded, others: tuple[Array, Array]) -> tuple[Array, Array]:
    """Row hashes that have absorbed the target; and then the side and the number of the copy."""
    levels = [each.chunk(0).dictionary.to_pylist() if _num_levels(each) else None for each in columns]
    words = [row_hash.hash_inputs(*each) for each in zip(features.values, levels, strict=True)]
    absorbed = [row_hash.hash_inputs(each, ["no", "yes"]) for each in others]
    hashed = row_hash.update_hashes(np.zeros(features.num_rows, np.uint64), *words)
    equal = side_by_side.beside(row_hash.find_equal_rows, hashed)
    contents = row_hash.update_hashes(hashed, *absorbed[:1])
    digests = row_hash.update_hashes(contents, *absorbed[1:], row_hash.FIRST_COPY)
    equal.result()
    return contents, digests


def _written(
    folder: Path,
    columns: list[pa.ChunkedArray],
    features: Encoded,
    target: Array,
    hashes: tuple[Array, Array],
    is_test: Array,
) -> tuple[tuple[Array, Array], tuple[Array, Array], torch.Tensor]:
    """Both splits, the sorted digests and exact test rows in files of their own; both splits, and the pass's order."""

    def split(name: str, is_mine: Array) -> tuple[Array, Array]:
        labels, file, sha256 = target[is_mine], (folder / name).open("wb", buffering=0), hashlib.sha256()
        for start in range(0, len(is_mine), BLOCK):
            part = slice(start, start + BLOCK)
            rows = np.compress(is_mine[part], features.matrix(part), axis=0)
            _append(file, sha256, rows)
        _append(file, sha256, hashes[0][is_mine], labels)
        return np.asarray(np.memmap(folder / name, np.float32, "c", 0, (len(labels), len(columns)))), labels

    def ordered() -> None:
        sides = side_by_side.each(np.sort, (hashes[0][~is_test], hashes[0][is_test], hashes[1][~is_test]))
        _append((folder / "rows").open("wb", buffering=0), hashlib.sha256(), *sides)
        exact = features.matrix(is_test).astype(np.float64)
        for at in (at for at, each in enumerate(columns) if not _num_levels(each)):
            exact[:, at] = columns[at].to_numpy()[is_test]
        _append((folder / "exact").open("wb", buffering=0), hashlib.sha256(), exact)

    with ThreadPoolExecutor(3) as pool:
        train, test = pool.submit(split, "train", ~is_test), pool.submit(split, "test", is_test)
        sorting = pool.submit(ordered)
        order = torch.randperm(int((~is_test).sum()))
        sorting.result()
        return train.result(), test.result(), order


def _append(file: Any, sha256: Any, *arrays: Array) -> None:
    for array in arrays:
        sha256.update(array.reshape(-1).view(np.uint8).data)
        file.write(array.data)


def _pass(train: tuple[Array, Array], test: tuple[Array, Array], order: torch.Tensor, num_levels: list[int]) -> None:
    """One step of plain SGD for each minibatch, the next of which are made meanwhile; then the test rows' loss."""
    starts = [0, *itertools.accumulate(num_levels)]
    by_levels = sorted((at for at, each in enumerate(num_levels) if each), key=num_levels.__getitem__)
    pairs = list(zip(by_levels[::-1], by_levels[: len(by_levels) // 2], strict=False))  # there are six
    slots = [torch.cartesian_prod(*(torch.arange(starts[at], starts[at + 1]) for at in pair)) for pair in pairs]
    firsts, seconds = torch.tensor(pairs).T
    stride = torch.tensor([float(num_levels[second]) for _, second in pairs]).unsqueeze(1)
    offset = torch.tensor([0, *itertools.accumulate(map(len, slots))][:-1]).unsqueeze(1)
    of_pairs = torch.cat(slots)
    numbers = torch.tensor([at for at, each in enumerate(num_levels) if not each])
    batch_size = rules.minibatch(len(order))
    weight, bias, effects = torch.zeros(2, len(numbers)), torch.zeros(2, 1), torch.zeros(2, starts[-1]).T

    def some(rows: Array, labels: Array) -> list[tuple[torch.Tensor, ...]]:
        whole = len(rows) // batch_size * batch_size
        made: list[tuple[torch.Tensor, ...]] = []
        for part in (slice(whole), slice(whole, None)):
            size = min(batch_size, len(rows[part])) or 1
            columns = torch.from_numpy(rows[part]).view(-1, size, rows.shape[1]).mT.contiguous()
            codes = columns.index_select(1, firsts).mul_(stride).add_(columns.index_select(1, seconds))
            y = torch.from_numpy(labels[part]).long().view(-1, size)
            made += zip(columns.index_select(1, numbers), codes.long().add_(offset).mT, y, strict=True)
        return made

    def minibatches() -> Iterator[list[tuple[torch.Tensor, ...]]]:
        for part in map(torch.Tensor.numpy, order.split(TOGETHER * batch_size)):
            yield some(np.take(train[0], part, axis=0), train[1][part])

    for inputs, places, y in itertools.chain.from_iterable(side_by_side.ahead(minibatches())):
        g = torch.softmax(weight @ inputs + bias + gathered(effects, of_pairs, places).T, dim=0)
        g[1] -= y
        g[0] -= 1 - y
        g /= len(y)
        weight.sub_(g @ inputs.T, alpha=RATE)
        bias.sub_(g.sum(1, keepdim=True), alpha=RATE)
        effects.sub_(gradient_of_gathered(g.T, effects, of_pairs, places), alpha=RATE)
    for inputs, places, y in some(*test):
        o = weight @ inputs + bias + gathered(effects, of_pairs, places).T
        torch.nn.functional.cross_entropy(o.unsqueeze(0), y.unsqueeze(0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, csv = map(Path, sys.argv[1:])
    seconds(flights.write(folder, 2000), folder)  # to have everything ready
    print(json.dumps({"seconds": seconds(csv, folder)}))
