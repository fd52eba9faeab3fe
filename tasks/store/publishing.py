"""A version folder appears by one rename, whole, and never changes. The caller holds the lock."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from tasks.data.report import DataReport
from tasks.parameters import RetrainParameters
from tasks.records import Evaluation, ExportedModel, GateVerdict, PreparedDataset, Splits, TrainedModel
from tasks.serving import contract, runtime
from tasks.store import (
    artifact_paths,
    atomic,
    attestation,
    folders,
    history,
    locks,
    names,
    pointer,
    reading,
    triton,
    verified,
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
from tasks.store.model_card import model_card
from tasks.store.model_page import model_page
from tasks.store.own_data import NOT_KEPT
from tasks.store.record import FileRef
from tasks.store.versions import Lineage, Manifest, Metrics, Parameters, Tolerances, Trained


@contextmanager
def turn(name: str, to_publish: bool) -> Iterator[bool]:
    """Hold the lock while a candidate is judged; yield whether it may be published: not under a frozen name.

    Where nothing is ``to_publish``, a folder that is not there is not made, and nothing in it is mended; and where
    nothing was published, one that was made for the lock goes.
    """
    with locks.model(name) if to_publish or reading.versions(name) else nullcontext():
        try:
            if to_publish:
                sweep(name)
            yield to_publish and not pointer.is_frozen(name)
        finally:
            if to_publish:
                folders.sweep_model(artifact_paths.model(name))


def sweep(name: str) -> None:
    """Remove what a killed publication or pruning left, and repair ``config.pbtxt``."""
    folders.sweep(names.LEFTOVER, artifact_paths.model(name))
    for number in reading.versions(name):  # a kill between the rename and this
        folders.make_read_only(artifact_paths.version(name, number))
    if current := reading.champion(name):
        triton.write_config(name, current.version)


def find(name: str, onnx_sha256: str) -> int | None:
    """The kept version with these very model bytes, if there is one."""
    kept = reading.versions(name)
    return next((each for each in kept if reading.manifest(name, each).files[ONNX] == onnx_sha256), None)


def was_champion(name: str, number: int) -> bool:
    """Whether a version is or ever was the champion; the pointer tells it even where the history is lost."""
    current = reading.champion(name)
    return number in (current.named if current else ()) or number in history.list_demotions(name)


def next_number(name: str) -> int:
    """One more than the highest that was ever given; where something else has that name, the next one."""
    number = history.highest_number(name) + 1
    while os.path.lexists(artifact_paths.version(name, number)):
        number += 1
    return number


def publish(lineage: Lineage, fill: Callable[[Path, int], None], sign_key: Path | None = None) -> int:
    """Make the next version by one rename; return its number.

    ``fill`` gets the staging folder and the number, and puts the files there; manifest and checksums are added here.
    With ``sign_key`` the folder also gets an attestation.
    """
    name = lineage.name
    number = next_number(name)
    staging = names.staging(artifact_paths.model(name))
    staging.mkdir()
    fill(staging, number)
    files = {path.name: atomic.file_digest(path) for path in sorted(staging.iterdir())}
    manifest = Manifest(**dict(lineage), version=number, files=files).write(staging / MANIFEST)
    atomic.write_bytes(staging / CHECKSUMS, verified.checksums(files | {MANIFEST: manifest.sha256}))
    if sign_key is not None:
        attestation.sign(staging, sign_key)
    for path in staging.iterdir():
        path.chmod(0o444)
        atomic.sync(path)
    if rows := lineage.dataset.rows:  # which the manifest names
        atomic.sync(rows.path)
        atomic.sync(rows.path.parent)
    atomic.sync(staging)
    final = artifact_paths.version(name, number)
    staging.rename(final)  # before the folder is read-only: macOS refuses to rename a read-only folder
    folders.make_read_only(final)
    atomic.sync(final.parent)
    return number


def lineage(
    run: str,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
    against_kept: tuple[GateVerdict, ...],
    best: int | None,
    packages: dict[str, str],
    code: str,
) -> Lineage:
    """What a version was made of by which ``run``, ``packages`` and ``code`` (a digest), and how it was judged."""
    return Lineage(
        name=parameters.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run,
        dataset=Splits(**dict(prepared)),
        recipe=prepared.recipe,
        parameters=Parameters.model_validate(parameters.model_dump(mode="json", exclude=NOT_KEPT)),
        device=trained.device,
        trained=Trained(**dict(trained), num_epochs=len(trained.learning_curve)),
        platform=platform.platform(),
        packages=packages,
        code=code,
        metrics=Metrics.model_validate(evaluated.metrics),
        gates=(*evaluated.gates, *exported.gates, *against_kept),
        best_version=best,
        profile=exported.profile,
        tolerances=Tolerances(sample=runtime.find_tolerance(prepared.recipe), parity=parameters.gates.max_parity_error),
    )


def fill(folder: Path, number: int, of: Lineage, exported: ExportedModel, pictures: tuple[FileRef, ...]) -> None:
    """Put the files of version ``number`` into its staging folder.

    Raises:
        DataError: a file of the run has changed since it was made.
    """
    candidate = contract.ModelMetadata.parse(verified.read(exported.metadata), exported.metadata.path)
    metadata = candidate.model_copy(update={"name": of.name, "versions": (str(number),)})
    for file in (exported.onnx, exported.sample, *pictures):
        (folder / file.path.name).write_bytes(verified.read(file))
    metadata.write(folder / METADATA)
    if class_names := of.dataset.class_names:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in class_names), encoding="utf-8")
    said = None
    if report := of.dataset.report:
        said = DataReport.parse(verified.read(report), report.path)
        said.write(folder / DATA_REPORT)
        (folder / DATA_PAGE).write_text(said.page(), encoding="utf-8")
    facts = of.model_dump(mode="json") | {"version": number}
    card = model_card(facts, metadata, [file.path.name for file in pictures], said)
    (folder / CARD).write_text(card, encoding="utf-8")
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = model_page(facts | {"model_sha256": exported.onnx.sha256}, metadata, contents, said)
    (folder / PAGE).write_text(page, encoding="utf-8")
