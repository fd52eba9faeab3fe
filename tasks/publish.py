"""Stage 6: the candidate becomes a version by one rename, then the champion."""

import platform
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tasks.judging import gates
from tasks.judging.champion_gates import against_published
from tasks.machine.telling import tell
from tasks.parameters import RetrainParameters
from tasks.records import (
    ChampionGates,
    Evaluation,
    ExportedModel,
    GateVerdict,
    PreparedDataset,
    PublishedModel,
    Splits,
    TrainedModel,
)
from tasks.serving import contract
from tasks.stage import events, live, reuse, stage
from tasks.store import artifact_paths, locks, pointer, publishing, verification, verified
from tasks.store.artifact_paths import ATTESTATION, CARD, LABELS, METADATA, ONNX
from tasks.store.model_card import model_card
from tasks.store.record import FileRef
from tasks.store.run_folder import RunFolder
from tasks.store.versions import Lineage, Metrics, Parameters, Tolerances, Trained


@stage()
def publish(
    run: RunFolder,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
) -> PublishedModel:
    """Publish the exported model under its name and make it the champion.

    A model whose bytes are kept already is not published again; it becomes the champion only if a kill has kept it
    from being one. A version that was rolled back from, or replaced, is not brought back by a retrain.

    Raises:
        GateFailed: the candidate is worse than what is published.
        DataError: a kept version that it is the same as, or is compared with, is damaged.
    """
    name = parameters.name
    with locks.model(name):
        publishing.sweep(name)
        number = publishing.find(name, exported.onnx.sha256)
        if number is not None:
            verification.verify_version(name, number)
        verdicts: tuple[GateVerdict, ...] = ()
        unchanged = number is not None and publishing.was_champion(name, number)
        if not unchanged:
            verdicts = against_published(name, exported.onnx, prepared, parameters.gates)
            gates.enforce(ChampionGates(gates=verdicts), verdicts, run)
            if number is None:
                lineage = _lineage(run, parameters, prepared, trained, evaluated, exported, verdicts)
                fill = partial(_fill, lineage=lineage, trained=trained, evaluated=evaluated, exported=exported)
                number = publishing.publish(lineage, fill, parameters.sign_key)
            pointer.point_to(name, number)
    assert number is not None, "found or just published"  # noqa: S101  (narrows the type)
    published = PublishedModel(
        outcome="unchanged" if unchanged else "published",
        name=name,
        version=number,
        model=FileRef(path=artifact_paths.version(name, number) / ONNX, sha256=exported.onnx.sha256),
        gates=verdicts,
    )
    tell(f"{name} version {number}: {published.outcome}")
    if parameters.sign_key and not (artifact_paths.version(name, number) / ATTESTATION).is_file():
        tell(f"{name} version {number} was published without --sign-key and stays without an attestation")
    if not unchanged and live.in_a_run():
        model = {"version": number, "sha256": published.model.sha256, "path": str(published.model.path)}
        events.emit(events.PUBLISHED, name, model | {"run": str(run.path)})
    return published


def _fill(
    folder: Path,
    number: int,
    lineage: Lineage,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
) -> None:
    """Put everything but the manifest and the checksums into the staging folder."""
    candidate = contract.ModelMetadata.parse(verified.read(exported.metadata), exported.metadata.path)
    metadata = candidate.model_copy(update={"name": lineage.name, "versions": (str(number),)})
    pictures = [trained.picture, *evaluated.pictures]
    for file in (exported.onnx, exported.sample, *pictures):
        (folder / file.path.name).write_bytes(verified.read(file))
    metadata.write(folder / METADATA)
    if class_names := lineage.dataset.class_names:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in class_names))
    facts = lineage.model_dump(mode="json") | {"version": number}
    (folder / CARD).write_text(model_card(facts, metadata, [file.path.name for file in pictures]))


def _lineage(
    run: RunFolder,
    parameters: RetrainParameters,
    prepared: PreparedDataset,
    trained: TrainedModel,
    evaluated: Evaluation,
    exported: ExportedModel,
    verdicts: tuple[GateVerdict, ...],
) -> Lineage:
    """What the version was made of, by what, and how it was judged."""
    return Lineage(
        name=parameters.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        run=run.path.name,
        dataset=Splits(**dict(prepared)),
        recipe=prepared.recipe,
        parameters=Parameters.model_validate(parameters.model_dump(mode="json", exclude={"sign_key"})),
        device=trained.device,
        trained=Trained(
            num_examples=trained.num_examples,
            num_validation=trained.num_validation,
            num_epochs=len(trained.learning_curve),
            kept_epoch=trained.kept_epoch,
        ),
        platform=platform.platform(),
        packages=reuse.package_versions(),
        code=reuse.code_digest(),
        metrics=Metrics.model_validate(evaluated.metrics),
        gates=(*evaluated.gates, *exported.gates, *verdicts),
        profile=exported.profile,
        tolerances=Tolerances(sample=contract.SAMPLE_TOLERANCE, parity=parameters.gates.max_parity_error),
    )
