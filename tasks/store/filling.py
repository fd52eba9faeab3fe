"""What lies in a version's folder: its lineage, and every file but the manifest and the checksums."""

import platform
from datetime import UTC, datetime
from pathlib import Path

from tasks.data.report import DataReport
from tasks.parameters import RetrainParameters
from tasks.records import Evaluation, ExportedModel, GateVerdict, PreparedDataset, Splits, TrainedModel
from tasks.serving import contract, runtime
from tasks.store import verified, version_page
from tasks.store.artifact_paths import CARD, DATA_PAGE, DATA_REPORT, LABELS, METADATA, PAGE
from tasks.store.own_data import NOT_KEPT
from tasks.store.page import render_html, render_markdown
from tasks.store.record import FileRef
from tasks.store.versions import Lineage, Metrics, Parameters, Tolerances, Trained


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
        (folder / DATA_PAGE).write_text(render_markdown(said.page(), embed=False), encoding="utf-8")
    facts = of.model_dump(mode="json") | {"version": number, "model_sha256": exported.onnx.sha256}
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    page = version_page.describe_version(facts, metadata, contents, said)
    (folder / CARD).write_text(version_page.render_card(page, facts), encoding="utf-8")
    (folder / PAGE).write_text(render_html(page), encoding="utf-8")
