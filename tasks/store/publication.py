"""Publication turns a candidate into a version: its folder appears whole, by one rename. The caller holds the lock."""

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from tasks.data.report import DataReport
from tasks.errors import DataError
from tasks.parameters import RetrainParameters
from tasks.records import Evaluation, ExportedModel, GateVerdict, PreparedDataset, Splits, TrainedModel
from tasks.serving import runtime
from tasks.store import (
    artifact_paths,
    atomic,
    folders,
    history,
    locks,
    model_folder,
    pointer,
    verified_files,
    version_page,
)
from tasks.store.artifact_paths import (
    CARD,
    CHECKSUMS,
    DATA_PAGE,
    DATA_REPORT,
    LABELS,
    MANIFEST,
    METADATA,
    ONNX,
    PAGE,
)
from tasks.store.model_folder import Lineage, Manifest, Metrics, RunParameters, Tolerances, TrainingOutcome
from tasks.store.own_data import NOT_KEPT
from tasks.store.page_rendering import render_html, render_markdown
from tasks.store.record_base import FileRef

CODE = Path(__file__).parents[1]  # tasks/
PACKAGES = (
    "gradmill", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "pillow",
    "prefect", "pyarrow", "safetensors", "scipy", "torch", "torchvision",
)  # fmt: skip


@contextmanager
def take_turn(name: str, to_publish: bool) -> Iterator[bool]:
    """Hold the lock while a candidate is judged; yield whether it may be published: not if the name is frozen.

    If not ``to_publish``, a missing folder is not created and nothing in it is repaired. A folder that was created for
    the lock is removed if nothing was published.
    """
    with locks.hold_model(name) if to_publish or model_folder.list_versions(name) else nullcontext():
        try:
            if to_publish:
                pointer.sweep(name)
            yield to_publish and not pointer.is_frozen(name)
        finally:
            if to_publish:
                folders.sweep_model(artifact_paths.model(name))


def find_version(name: str, onnx_sha256: str) -> int | None:
    """The kept version with exactly these model bytes, if there is one."""
    kept = model_folder.list_versions(name)
    return next((each for each in kept if model_folder.find_manifest(name, each).files[ONNX] == onnx_sha256), None)


def next_number(name: str) -> int:
    """One more than the highest number ever given, or the next free one if something else has that name.

    Raises:
        DataError: the history is damaged, or no number is left.
    """
    number = history.highest_number(name, history.list_changes(name)) + 1
    while os.path.lexists(artifact_paths.version(name, number)):
        number += 1
    if not artifact_paths.VERSION.fullmatch(str(number)):
        found = f"{artifact_paths.model(name)}, or its history, has a version {number - 1}"
        raise DataError(found, "numbers of at most nine digits", "restore it from a copy, or take another --name")
    return number


def describe_lineage(
    run: str,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
    against_kept: tuple[GateVerdict, ...],
    best: int | None,
) -> Lineage:
    """What a version was made of, by which ``run``, packages and code, and how it was judged."""
    return Lineage(
        name=parameters.name,
        created_at=model_folder.format_now(),
        run=run,
        dataset=Splits(**dict(prepared)),
        recipe=prepared.recipe,
        parameters=RunParameters.model_validate(parameters.model_dump(mode="json", exclude=NOT_KEPT)),
        device=trained.device,
        trained=TrainingOutcome(**dict(trained), num_epochs=len(trained.learning_curve)),
        platform=platform.platform(),
        packages=list_packages(),
        code=digest_code(),
        metrics=Metrics.model_validate(evaluated.metrics),
        gates=(*evaluated.gates, *exported.gates, *against_kept),
        best_version=best,
        profile=exported.profile,
        tolerances=Tolerances(sample=runtime.find_tolerance(prepared.recipe), parity=parameters.gates.max_parity_error),
    )


@functools.cache
def digest_code(folder: Path = CODE) -> str:
    """SHA-256 (hex) of all source files in ``folder`` and in ``gradmill`` beside it."""
    digest, shared = hashlib.sha256(), folder.with_name("gradmill")
    for path in [each for kind in ("*.py", "*.jinja") for each in sorted([*shared.rglob(kind), *folder.rglob(kind)])]:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder.parent)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


@functools.cache
def list_packages() -> dict[str, str]:
    """The installed versions of everything that can change a model, Python included."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def write_version_files(
    folder: Path, number: int, lineage: Lineage, exported: ExportedModel, pictures: tuple[FileRef, ...]
) -> None:
    """Write the files of version ``number`` into its staging folder.

    Raises:
        DataError: a file of the run has changed since it was written.
    """
    models = exported.onnx, exported.evaluated_onnx, exported.weights
    files = filter(None, (*models, exported.sample, lineage.dataset.report, *pictures))
    contents = {file.path.name: verified_files.read(file) for file in files}
    contents[METADATA] = lineage.describe_model(number).to_json()
    manifest = Manifest(**dict(lineage), version=number, files=_digest_all(contents))
    report = None
    if DATA_REPORT in contents:
        report = DataReport.parse(contents[DATA_REPORT], DATA_REPORT)
        contents[DATA_PAGE] = render_markdown(report.page(), embed=False).encode()
    page = version_page.describe_version(manifest, contents, report)
    contents[CARD] = version_page.render_card(page, manifest).encode()
    contents[PAGE] = render_html(page).encode()
    if labels := "".join(f"{label}\n" for label in lineage.dataset.class_names):
        contents[LABELS] = labels.encode()
    digests = _digest_all(contents)
    contents[MANIFEST] = manifest.model_copy(update={"files": digests}).to_json()
    contents[CHECKSUMS] = verified_files.checksums(digests | {MANIFEST: verified_files.sha256(contents[MANIFEST])})
    for filename, content in contents.items():
        path = folder / filename
        path.write_bytes(content)
        path.chmod(0o444)
        atomic.sync(path)


def _digest_all(contents: dict[str, bytes]) -> dict[str, str]:
    return {filename: verified_files.sha256(content) for filename, content in sorted(contents.items())}


def publish(lineage: Lineage, exported: ExportedModel, pictures: tuple[FileRef, ...]) -> int:
    """Publish the next version by one rename; return its number."""
    name = lineage.name
    number = next_number(name)
    staging = artifact_paths.staging(artifact_paths.model(name))
    staging.mkdir()
    write_version_files(staging, number, lineage, exported, pictures)
    if rows := lineage.dataset.rows:  # the file is named in the manifest
        atomic.sync(rows.path)
        atomic.sync(rows.path.parent)
    atomic.sync(staging)
    final = artifact_paths.version(name, number)
    staging.rename(final)  # before the folder is read-only: macOS refuses to rename a read-only folder
    folders.make_read_only(final)
    atomic.sync(final.parent)
    return number
