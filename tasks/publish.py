"""Stage 7: publish the candidate as a version by one rename, then make it the champion."""

from tasks.judging import gates
from tasks.judging.champion import Comparison, compare_with_published
from tasks.machine.run_messages import Event, print_message
from tasks.machine.words import format_names
from tasks.parameters import RetrainParameters
from tasks.records import ChampionGates, Evaluation, ExportedModel, PreparedDataset, PublishedModel, TrainedModel
from tasks.stage import live_progress, stage
from tasks.store import artifact_paths, history, own_data, pointer, publication, verification
from tasks.store.history import Cause
from tasks.store.run_folder import RunFolder


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

    A model whose bytes are already kept is not published again; it becomes the champion only if a kill prevented that
    before. A retrain never brings back a version that was rolled back from or replaced, even if its folder is gone. If
    the name is frozen, or publishing is off, the model is only judged.

    Raises:
        GateFailed: the candidate is worse than what is published.
        DataError: a kept version that equals the candidate, or is compared with it, is damaged.
        UsageError: meanwhile the name has another model, kind of data or target.
    """
    name = parameters.name
    comparison, detail = Comparison(), ""
    with publication.take_turn(name, parameters.publish) as may_publish:
        own_data.require_same_kind(parameters)  # another first run may have finished earlier
        if (kept := publication.find_version(name, exported.onnx.sha256)) is not None:
            verification.verify_version(name, kept)
        unchanged = kept is not None and pointer.was_champion(name, kept)
        for held, sha256 in history.list_held_versions(name).items():
            if kept is None and sha256 == exported.onnx.sha256:
                may_publish, detail = False, f"equal to version {held}, which was rolled back from and is gone"
        if not unchanged:
            bounds, training = parameters.gates, parameters.training
            candidate = exported.evaluated_onnx or exported.onnx
            comparison = compare_with_published(name, candidate, prepared, bounds, training)
            gates.raise_if_failed(ChampionGates(gates=comparison.gates), comparison.gates, run)
        if not unchanged and may_publish:
            if kept is None:
                made_of = (parameters, prepared, trained, evaluated, exported, *comparison)
                lineage = publication.describe_lineage(run.path.name, *made_of)
                pictures = (*evaluated.pictures, *filter(None, (trained.picture, prepared.sheet)))
                own_data.remember(name, parameters.data)  # first, or a kill would leave a version without a source
                kept = publication.publish(lineage, exported, pictures)
            pointer.point_to(name, kept, Cause("published", by=run.path.name, reason=_list_accepted(name, prepared)))
    published = PublishedModel(
        outcome="judged", name=name, version=None, model=exported.onnx, gates=comparison.gates, detail=detail
    )
    if kept is not None and (unchanged or may_publish):
        model = exported.onnx.model_copy(update={"path": artifact_paths.version(name, kept) / artifact_paths.ONNX})
        outcome, detail = ("unchanged", "identical byte for byte") if unchanged else ("published", "")
        facts = {"outcome": outcome, "version": kept, "model": model, "detail": detail}
        published = published.model_copy(update=facts)
    _report_outcome(run, published)
    return published


def _list_accepted(name: str, prepared: PreparedDataset) -> str:
    """In words, what the user accepted in these data and not in the champion's."""
    champion = own_data.of_champion(name)
    new = [each.in_words for each in prepared.accepted if champion is None or each not in champion.accepted]
    return f"accepted: {format_names(new, 10)}" if new else ""


def _report_outcome(run: RunFolder, published: PublishedModel) -> None:
    version = f"{published.name} version {published.version}" if published.version else published.name
    print_message(outcome := f"{version}: {published.outcome}", short=outcome)
    if published.outcome == "published":
        model = {"version": published.version, "sha256": published.model.sha256, "path": str(published.model.path)}
        live_progress.emit_from_task(Event.PUBLISHED, published.name, model | {"run": str(run.path)})
