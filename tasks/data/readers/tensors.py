"""Tensors of a safetensors file. Its header is compared with the file's size first."""

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field, NonNegativeInt

from tasks.data.readers.formats import broken
from tasks.data.readers.stored import HeldFile, StoredRows
from tasks.store.documents import Document

SAFETENSORS_HEADER_BYTES = 16 * 2**20
DTYPES = {
    "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
    "F16": np.float16, "F32": np.float32, "F64": np.float64,
}  # fmt: skip  # of safetensors; numpy has no others, such as BF16


class _Tensor(Document):
    """Where one tensor of a safetensors file lies, from the end of the header on."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


class _Header(Document):
    """The header of a safetensors file: a tensor by each name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Tensor] = Field(init=False)
    metadata: dict[str, str] = Field({}, alias="__metadata__")

    @property
    def tensors(self) -> dict[str, _Tensor]:
        """By name."""
        return self.__pydantic_extra__


class Tensors:
    """What a safetensors file holds, still in it.

    Raises:
        DataError: it is no whole one.
    """

    def __init__(self, path: Path) -> None:
        file = HeldFile(path)
        length = int.from_bytes(file.read(8, 0), "little")
        if not 0 < length <= min(SAFETENSORS_HEADER_BYTES, file.size - 8):
            raise broken(path, f"it has {file.size} bytes, and its header would have {length}")
        self._file, self._start = file, 8 + length
        self._found = _Header.parse(file.read(length, 8), path, "write it again").tensors
        promised = self._start + max((tensor.data_offsets[1] for tensor in self._found.values()), default=0)
        if promised != file.size:
            raise broken(path, f"it has {file.size} bytes, and its header promises {promised}")

    @property
    def names(self) -> Collection[str]:
        """What the tensors are called."""
        return self._found.keys()

    def __getitem__(self, name: str) -> StoredRows:
        tensor = self._found[name]
        if tensor.dtype not in DTYPES:
            raise broken(self._file.path, f"numpy has no {tensor.dtype}")
        dtype = np.dtype(DTYPES[tensor.dtype])
        first, last = tensor.data_offsets
        if last - first != math.prod(tensor.shape) * dtype.itemsize:
            found = f"shape {tensor.shape} of {tensor.dtype} does not fill bytes {first} to {last}"
            raise broken(self._file.path, found)
        return StoredRows(self._file, dtype, tensor.shape, self._start + first)
