"""The serving contract: names, types and shapes of the ONNX models that ``export`` writes and ``predict`` relies on."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import model_serializer

from tasks.store.documents import Document
from tasks.store.record import Record

IMAGES = "images"
FEATURES = "features"
PROBABILITIES = "probabilities"
LABEL = "label"
PREDICTION = "prediction"

COLUMNS = "columns"  # of metadata_props, and of metadata.json's parameters

BATCH = "batch"  # the name of the dynamic first dimension
OPSET = 20  # later ones abort in onnxruntime 1.21, which Debian still ships
IR_VERSION = 9  # of the file's format: the one that came with this opset


class Tensor(Record):
    """One input or output; ``shape`` leaves out the batch dimension that comes first."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Signature(Record):
    """What a consumer must feed and what it gets."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


OPEN_INFERENCE_TYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}


class MetadataTensor(Document):
    """An input or output as the Open Inference Protocol describes it; -1 stands for the batch."""

    name: str
    datatype: Literal["UINT8", "FP32", "INT64"]
    shape: tuple[int, ...]


class ColumnMetadata(Document):
    """What a consumer must know of a table's column; the code of a level is its position."""

    name: str
    kind: Literal["number", "boolean", "category"]
    levels: tuple[str, ...]  # of a category


class Parameters(Document):
    """What the protocol has no field for: a table's columns, in the order of ``features``."""

    columns: tuple[ColumnMetadata, ...]


class ModelMetadata(Document):
    """``metadata.json``: model metadata of the Open Inference Protocol v2. A candidate has no version yet."""

    name: str | None
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[MetadataTensor, ...]
    outputs: tuple[MetadataTensor, ...]
    parameters: Parameters | None = None  # of tables

    @model_serializer(mode="wrap")
    def _without_empty_parameters(self, described: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in described(self).items() if key != "parameters" or value is not None}


def open_inference_metadata(
    name: str | None, version: int | None, signature: Signature, columns: tuple[ColumnMetadata, ...] = ()
) -> ModelMetadata:
    """The metadata of a version, or of a candidate, by its signature and a table's columns."""

    def described(tensor: Tensor) -> MetadataTensor:
        datatype = OPEN_INFERENCE_TYPES[tensor.dtype]
        return MetadataTensor.model_validate({"name": tensor.name, "datatype": datatype, "shape": (-1, *tensor.shape)})

    return ModelMetadata(
        name=name,
        versions=() if version is None else (str(version),),
        platform="onnx_onnxv1",
        inputs=tuple(described(tensor) for tensor in signature.inputs),
        outputs=tuple(described(tensor) for tensor in signature.outputs),
        parameters=Parameters(columns=columns) if columns else None,
    )


ONNXRUNTIME_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)"}


def of_session(session: Any) -> Signature:
    """The signature that an onnxruntime session reports of its model."""
    dtypes = {theirs: ours for ours, theirs in ONNXRUNTIME_TYPES.items()}
    return Signature(
        inputs=tuple(_tensor(node, dtypes) for node in session.get_inputs()),
        outputs=tuple(_tensor(node, dtypes) for node in session.get_outputs()),
    )


def _tensor(node: Any, dtypes: dict[str, str]) -> Tensor:
    return Tensor(name=node.name, dtype=dtypes.get(node.type, node.type), shape=tuple(node.shape[1:]))


def columns_of_session(session: Any) -> tuple[ColumnMetadata, ...]:
    """The columns that a table's file names in its ``metadata_props``; none of another file.

    Raises:
        DataError: they are not as ``export`` writes them.
    """
    written = session.get_modelmeta().custom_metadata_map.get(COLUMNS)
    source = f"{COLUMNS} of metadata_props"
    return () if written is None else Parameters.parse(f'{{"{COLUMNS}":{written}}}'.encode(), source).columns
