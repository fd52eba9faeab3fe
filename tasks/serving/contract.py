"""The serving contract: names, types and shapes of the ONNX models that ``export`` writes and ``predict`` relies on."""

import operator
from typing import Any, Literal

from pydantic import ConfigDict, Field

from tasks.store.documents import Document
from tasks.store.record_base import Record

IMAGES = "images"
FEATURES = "features"
PROBABILITIES = "probabilities"
LABEL = "label"
PREDICTION = "prediction"

COLUMNS = "columns"  # a key of metadata_props, and of the parameters in metadata.json

BATCH = "batch"  # the name of the dynamic first dimension
OPSET = 20  # later ones abort in onnxruntime 1.21, which Debian still ships
IR_VERSION = 9  # the version of the file format: the one that came with this opset


class Tensor(Record):
    """One input or output; ``shape`` leaves out the batch dimension that comes first."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Signature(Record):
    """What a consumer must feed and what it gets."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


Datatype = Literal["UINT8", "FP32", "INT64"]
OPEN_INFERENCE_TYPES: dict[str, Datatype] = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}


class MetadataTensor(Document):
    """An input or output as the Open Inference Protocol describes it; -1 stands for the batch."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class ColumnMetadata(Document):
    """What a consumer must know about a table's column; the code of a level is its position."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    name: str
    kind: Literal["number", "boolean", "category"]
    levels: tuple[str, ...]  # of a categorical column
    source: str = Field("", alias="from", exclude_if=operator.not_)  # the column of dates that this is a part of
    part: str = Field("", exclude_if=operator.not_)  # month, weekday, hour or year
    zone: str = Field("", exclude_if=operator.not_)  # dates that have another time zone are read in this one


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
    parameters: Parameters | None = Field(None, exclude_if=operator.not_)  # for tables only


def open_inference_metadata(
    name: str | None, version: int | None, signature: Signature, columns: tuple[ColumnMetadata, ...] = ()
) -> ModelMetadata:
    """The metadata of a version or a candidate, from its signature and a table's columns."""
    inputs, outputs = (
        tuple(
            MetadataTensor(name=each.name, datatype=OPEN_INFERENCE_TYPES[each.dtype], shape=(-1, *each.shape))
            for each in tensors
        )
        for tensors in (signature.inputs, signature.outputs)
    )
    return ModelMetadata(
        name=name,
        versions=() if version is None else (str(version),),
        platform="onnx_onnxv1",
        inputs=inputs,
        outputs=outputs,
        parameters=Parameters(columns=columns) if columns else None,
    )


ONNXRUNTIME_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}


def read_signature(session: Any) -> Signature:
    """The signature that an onnxruntime session reports of its model."""
    inputs, outputs = (
        tuple(
            Tensor(name=node.name, dtype=ONNXRUNTIME_TYPES.get(node.type, node.type), shape=tuple(node.shape[1:]))
            for node in nodes
        )
        for nodes in (session.get_inputs(), session.get_outputs())
    )
    return Signature(inputs=inputs, outputs=outputs)


def read_columns(session: Any) -> tuple[ColumnMetadata, ...]:
    """The columns that a table's file names in its ``metadata_props``; empty for any other file.

    Raises:
        DataError: they are not as ``export`` writes them.
    """
    written = session.get_modelmeta().custom_metadata_map.get(COLUMNS)
    source = f"{COLUMNS} of metadata_props"
    return () if written is None else Parameters.parse(f'{{"{COLUMNS}":{written}}}'.encode(), source).columns
