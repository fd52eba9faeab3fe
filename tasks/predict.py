"""Stage 7: batch prediction through onnxruntime, on CUDA where there is a GPU. Imports no torch."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
from numpy.typing import NDArray

from tasks import artifact_paths, atomic, contract, idx, onnx_session, progress
from tasks.artifact_paths import JOB, LABELS, PREDICTION_GRID
from tasks.errors import DataError, UsageError
from tasks.model_store import reading
from tasks.parameters import PredictParameters
from tasks.records import FileRef, Prediction
from tasks.run_folder import RunFolder
from tasks.stage import stage

GRID_IMAGES = 18

Array = NDArray[Any]


@stage()
def predict(run: RunFolder, parameters: PredictParameters) -> Prediction:
    """Run a version over its input and write Parquet, ``job.json`` and, for images, a picture of the first few.

    Raises:
        UsageError: the model, the version or the input does not exist, or the output folder holds another job.
        DataError: the input is broken or does not fit the model.
        DeviceMissing: CUDA was asked for and is not there.
    """
    number, model = reading.load(parameters.name, parameters.version)
    folder = artifact_paths.version(parameters.name, number)
    session = onnx_session.open_session(model, parameters.device)
    provider = onnx_session.provider(session)
    model_sha256 = hashlib.sha256(model).hexdigest()
    source = _source(parameters, number)
    inputs, truth = read_inputs(source.path, contract.of_session(session).inputs[0])
    job = job_id(source, model_sha256, parameters.batch_size)
    output = _output_folder(parameters, job)
    done = _finished(output, job, provider)
    if done is not None:
        print(f"nothing has changed: job {job} is done, predictions in {output}")
        return done
    print(f"{len(inputs)} rows through {parameters.name} version {number} on {provider}")
    started = datetime.now(UTC)
    outputs = run_batches(session, inputs, parameters.batch_size)
    labels = (folder / LABELS).read_text().splitlines() if (folder / LABELS).is_file() else []
    document: dict[str, Any] = {
        "schema_version": 1,
        "job": job,
        "status": "done",
        "input": {"path": str(source.path), "sha256": source.sha256},
        "model": {"name": parameters.name, "version": number, "sha256": model_sha256},
        "provider": provider,
        "batch_size": parameters.batch_size,
        "rows": len(inputs),
        "accuracy": None if truth is None or not labels else float((outputs[contract.LABEL] == truth).mean()),
        "started_at": started.isoformat(timespec="milliseconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    _write_parquet(artifact_paths.part(output, 0), outputs, labels, document)
    _write_grid(output, inputs, outputs, truth, labels)
    atomic.write_json(output / JOB, document)
    print(f"predictions in {output}")
    return _prediction(output, document)


def _prediction(output: Path, document: dict[str, Any]) -> Prediction:
    picture = output / PREDICTION_GRID
    return Prediction(
        path=output,
        rows=document["rows"],
        name=document["model"]["name"],
        version=document["model"]["version"],
        model_sha256=document["model"]["sha256"],
        provider=document["provider"],
        accuracy=document["accuracy"],
        picture=picture if picture.is_file() else None,
    )


def _finished(output: Path, job: str, provider: str) -> Prediction | None:
    """What an earlier, finished run of the same job left; None when it is not all there."""
    try:
        document = json.loads((output / JOB).read_text())
        rows = pq.read_metadata(artifact_paths.part(output, 0)).num_rows
    except (OSError, ValueError):
        return None
    expected = {"job": job, "status": "done", "rows": rows, "provider": provider}
    return _prediction(output, document) if expected.items() <= document.items() else None


def _source(parameters: PredictParameters, number: int) -> FileRef:
    if parameters.input is None:
        return FileRef.model_validate(reading.manifest(parameters.name, number)["dataset"]["test"])
    path = Path(parameters.input).expanduser()
    if not path.is_file():
        raise UsageError(f"no file {path}", "a file of inputs (IDX, .npy or .safetensors)", "check the path")
    return FileRef(path=path.absolute(), sha256=atomic.file_digest(path))


def read_inputs(path: Path, wanted: contract.Tensor) -> tuple[Array, Array | None]:
    """The rows of a file, and their true labels where it has them.

    Raises:
        DataError: the file is broken, or its rows do not have the model's type and shape.
    """
    rows, truth = _read(path, wanted)
    if rows.dtype != np.dtype(wanted.dtype) or rows.shape[1:] != wanted.shape or not len(rows):
        raise DataError(
            f"{path} holds {rows.dtype} rows of shape {list(rows.shape)}",
            f"{wanted.dtype} of shape [rows, {', '.join(map(str, wanted.shape))}], at least one row",
            "convert the file, or name the model that it is for with --name",
        )
    return rows, truth


def _read(path: Path, wanted: contract.Tensor) -> tuple[Array, Array | None]:
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="np") as tensors:
                names = set(tensors.keys())
                if wanted.name not in names:
                    raise DataError(f"{path} holds {sorted(names)}", f"a tensor named {wanted.name}", "rename it")
                return tensors.get_tensor(wanted.name), tensors.get_tensor("labels") if "labels" in names else None
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is gone", "the dataset that the version was trained on", "retrain, or name an input"
        ) from error
    except (ValueError, EOFError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}", f"a whole {path.suffix} file", "write it again") from error
    return idx.read_images(path), None


def job_id(source: FileRef, model_sha256: str, batch_size: int) -> str:
    """The first 16 hex digits of the SHA-256 of everything that decides a job's output."""
    identity = json.dumps({"input": source.sha256, "model": model_sha256, "batch_size": batch_size}, sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _output_folder(parameters: PredictParameters, job: str) -> Path:
    """The job's folder, its leftovers swept.

    Raises:
        UsageError: it holds another job, or files that no job wrote.
    """
    folder = Path(parameters.output).expanduser().absolute() if parameters.output else artifact_paths.predictions(job)
    if folder.is_dir() and any(folder.iterdir()) and not parameters.restart:
        try:
            other = json.loads((folder / JOB).read_text()).get("job")
        except (OSError, ValueError):
            other = "something else" if parameters.output else job
        if other != job:
            raise UsageError(f"{folder} holds {other}", f"an empty folder or job {job}", "choose another, or --restart")
    folder.mkdir(parents=True, exist_ok=True)
    atomic.sweep(folder)
    if parameters.restart:
        (folder / JOB).unlink(missing_ok=True)
    return folder


def run_batches(session: Any, inputs: Array, batch_size: int) -> dict[str, Array]:
    """Every output of the model by name, for all rows in order."""
    names = [node.name for node in session.get_outputs()]
    (source,) = session.get_inputs()
    starts = range(0, len(inputs), batch_size)
    with progress.bar() as bar:
        batches = [
            session.run(names, {source.name: np.ascontiguousarray(inputs[start : start + batch_size])})
            for start in bar.track(starts, description="predict")
        ]
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*batches, strict=True), strict=True)}


def _write_parquet(path: Path, outputs: dict[str, Array], labels: list[str], document: dict[str, Any]) -> None:
    """Row number, then label, label name and one probability a class, or the prediction."""
    rows = len(next(iter(outputs.values())))
    columns: dict[str, Any] = {"row": np.arange(rows, dtype=np.int64)}
    if contract.PREDICTION in outputs:
        columns[contract.PREDICTION] = outputs[contract.PREDICTION]
    else:
        label = outputs[contract.LABEL]
        columns[contract.LABEL] = label
        columns["label_name"] = pa.DictionaryArray.from_arrays(pa.array(label.astype(np.int8)), pa.array(labels))
        for index, name in enumerate(labels):
            columns[f"probability_{name}"] = outputs[contract.PROBABILITIES][:, index]
    table = pa.table(columns).replace_schema_metadata(
        {"job": document["job"], "model": json.dumps(document["model"]), "provider": document["provider"]}
    )
    with atomic.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _write_grid(output: Path, inputs: Array, outputs: dict[str, Array], truth: Array | None, labels: list[str]) -> None:
    """The first images under their true and predicted label (the book's ``predict_ch3``)."""
    if not labels:
        return
    try:
        from tasks import figures
    except ModuleNotFoundError:
        print("no picture of the predictions: matplotlib is not installed (extra: train)")
        return
    predicted = [labels[index] for index in outputs[contract.LABEL][:GRID_IMAGES]]
    true = [labels[index] for index in truth[:GRID_IMAGES]] if truth is not None else None
    figures.image_grid(inputs[:GRID_IMAGES], predicted, true, output / PREDICTION_GRID)
