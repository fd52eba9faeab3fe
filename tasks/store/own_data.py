"""A name's own data: where they are, what its versions fixed about them, and when no training is needed.

A run is unchanged if a kept version was made of the same rows, or if too few rows are new. The contents of files that
look as they did when they were last read are recorded in ``look.json`` beside the dataset's files.
"""

import itertools
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError, field_serializer, field_validator

from tasks.data.schema import SPLITS, find_schema
from tasks.errors import DataError, UsageError
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_setting, pluralize
from tasks.parameters import Data, Device, LearningParameters, ModelName, RetrainParameters, Use, is_name
from tasks.parameters.data import NO_WINDOW, InspectParameters
from tasks.parameters.form import WORDS
from tasks.parameters.training import BOOK_DATASETS, CONVERGED, SEARCHED, Training, list_defaults
from tasks.records import ChampionData, PreparedDataset, PublishedModel, RawDataset, TableFit
from tasks.store import (
    artifact_paths,
    history,
    locks,
    model_folder,
    pointer,
    tuning_result,
    verification,
    verified_files,
)
from tasks.store.artifact_paths import ONNX
from tasks.store.documents import RootDocument
from tasks.store.history import Cause
from tasks.store.model_folder import Manifest
from tasks.store.record_base import FileRef, Sha256
from tasks.store.run_folder import RunFolder

# Parameters that no document keeps: paths, one-time options, and what the recipe says.
ONCE = {"new_recipe", "accept_data", "forget_accepted"}
NOT_KEPT: dict[str, Any] = {"data": {"source", "decimal", "header", "names", "encoding", *ONCE}}
NAME_SOURCE = "name the data with --data"
KINDS = WORDS | {Use.TABLES: "your own data"}
# Options that do not change the model: where it is trained, where the data are, how long to wait for more, one-time
# options. The split is among them because the name fixes its rule and the digest of the data covers it.
OTHERS: dict[str, Any] = {
    "training": {"device"},
    "data": NOT_KEPT["data"] | {"min_new_rows", "test", *SPLITS.values()},
}


KEPT_FRAMES = "datasets/"


class Source(RootDocument):
    """``source.json``: where own data are (the only absolute path of a model's documents), and how many rows to await.

    The rows that ``gradmill.fit`` keeps in ``datasets/`` are found wherever the store is.

    ``min_new_rows`` is here because a run that waits makes no manifest.
    """

    source: str
    min_new_rows: int | None = None

    @field_validator("source")
    @classmethod
    def _from_here(cls, source: str) -> str:
        return str(artifact_paths.root() / source) if source.startswith(KEPT_FRAMES) else source

    @field_serializer("source", when_used="json")
    def _relative(self, source: str) -> str:
        kept = source.removeprefix(f"{artifact_paths.root()}/")
        return kept if kept.startswith(KEPT_FRAMES) else source


class TrainedFiles(RootDocument):
    """``<digest>.sources.json``: the files that data were read from, or the source of data that are not in files."""

    files: tuple[str, ...]


def remember(name: str, data: Data) -> None:
    """Record the source of own data and ``min_new_rows`` for ``gradmill retrain NAME``."""
    if data.source:
        Source(source=data.source, min_new_rows=data.min_new_rows).write(artifact_paths.source(name))


def list_options(parameters: LearningParameters) -> dict[str, Any]:
    """The options, as given, that make a different model of the same rows."""
    return parameters.model_dump(mode="json", include={"training", "data"}, exclude=OTHERS)


def find_newest(name: str) -> Manifest | None:
    """The newest kept version's manifest: the levels of its columns begin with those of every older one."""
    kept = model_folder.list_versions(name)
    return model_folder.find_manifest(name, kept[-1]) if kept else None


def find_fixed(name: str) -> Any:
    """What the versions of a name fixed about its own data; None before the first, and for the book's data."""
    kept = find_newest(name)
    return kept and find_schema(kept.dataset, kept.recipe)


def keeps_table(name: str) -> bool:
    """Whether a name keeps versions of an own table."""
    kept = find_newest(name) if is_name(name) else None
    return kept is not None and kept.dataset.find_use(kept.recipe) is Use.TABLES


def of_champion(name: str, forget_accepted: bool = False) -> ChampionData | None:
    """The own data that the champion of a name was made of; None before the first, and for the book's data.

    With ``forget_accepted``, no finding counts as accepted.
    """
    pointer = model_folder.find_champion(name) if is_name(name) else None
    if pointer is None:
        return None
    kept = model_folder.find_manifest(name, pointer.version)
    data = ChampionData.from_splits(kept.dataset, kept.parameters.data.get("window", NO_WINDOW))
    if data and (forget_accepted or history.is_forgotten(history.list_changes(name), pointer.version)):
        return data.model_copy(update={"accepted": ()})
    return data


def find_kept_fit(name: str, options: Training | InspectParameters, new_recipe: bool) -> TableFit | None:
    """The champion's fit, if it is of a table whose later versions keep its shape.

    With a new recipe or another objective, the shape is chosen anew.
    """
    pointer = model_folder.find_champion(name) if is_name(name) and not new_recipe else None
    if pointer is None:
        return None
    champion = model_folder.find_manifest(name, pointer.version)
    training = champion.parameters.training
    objective = {field: getattr(training, field) for field in ("loss", "class_weight", "weight_decay")}
    is_same = all(getattr(options, field, value) == value for field, value in objective.items())
    return champion.trained.fit if is_same else None


def forget_accepted(name: str, by: str) -> None:
    """Record in the history that whatever was accepted in the data of the versions so far stops runs again."""
    if model_folder.list_versions(name):
        with locks.hold_model(name):
            cause = Cause("forgot accepted", by=by)
            history.append_change(name, cause, model_folder.list_versions(name)[-1:], model_folder.read_pointer(name))
        print_message(f"whatever was accepted in the data of {name} stops runs again")


def repeat_parameters(name: str, given: dict[str, Any], with_found: bool = False) -> dict[str, Any]:
    """The parameters of ``gradmill retrain NAME``: its champion's model, data and options, updated by what is given.

    Settings that a search found for the champion are left out unless ``with_found``; a name that uses found settings
    takes those of the newest search.

    Raises:
        UsageError: there is no such model.
        DataError: its manifest is damaged, or nothing says where its data are.
    """
    if not model_folder.list_versions(name):
        raise model_folder.unknown_model_error(name, ModelName)
    champion = model_folder.find_manifest(name, model_folder.resolve_version(name, None))
    asked = champion.parameters.model_dump(mode="json")
    training, data = Training.drop_removed(asked["training"]), Data.drop_removed(asked["data"])
    for option, action in Training.removed.items():
        if value := asked["training"].get(option):
            print_message(f"{option} {value} of version {champion.version} is ignored: {action}")
    is_table = champion.dataset.find_use(champion.recipe) is Use.TABLES
    if is_table:
        training = _drop_epoch_settings(champion, training)
    if champion.dataset.split:
        now, path = given.get("data", {}), artifact_paths.source(name)
        if known := Source.find(path, NAME_SOURCE):
            data |= known.model_dump(exclude={"schema_version"}, exclude_none=True)
        elif not now.get("source"):
            what = f"nothing says where the data of {name} are: no {path}"
            raise DataError(what, "the place of its data", NAME_SOURCE)
        data |= _split(name, now)
    is_tuned = given.get("tuned", asked["tuned"] and not is_table)
    found = (asked.get("found") or {}).get("fields", ())
    if is_tuned and not is_table:
        training = _drop_searched_values(name, champion, training, found)
    elif not with_found:
        training = {field: value for field, value in training.items() if field not in found}
    parts = {"training": training, "data": data}
    repeated = {
        part: {key: value for key, value in values.items() if value is not None} | given.get(part, {})
        for part, values in parts.items()
    }
    return given | {"name": name, "tuned": is_tuned} | repeated


def _drop_epoch_settings(champion: Manifest, training: dict[str, Any]) -> dict[str, Any]:
    """The settings of a table that an earlier release trained in epochs, without those that no table has now."""
    usual = list_defaults(champion.parameters.training.model, champion.dataset.defaults)
    kept = {name: value for name, value in training.items() if _applies_to_tables(name)}
    dropped = {name: value for name, value in training.items() if name not in kept and value != usual.get(name)}
    settings = [f"{name.replace('_', ' ')} {format_setting(value)}" for name, value in dropped.items()]
    if champion.parameters.tuned:
        settings.append("tuned")
    if settings:
        verb = "is" if len(settings) == 1 else "are"
        print_message(f"{', '.join(settings)} of version {champion.version} {verb} ignored: {CONVERGED}")
    if kept.get("device") == Device.CUDA:
        del kept["device"]
        print_message(f"device cuda of version {champion.version} is ignored: tables need no GPU")
    return kept


def _applies_to_tables(setting: str) -> bool:
    """Whether a training setting applies to tables; settings that only a newer release has count as such."""
    return setting not in Training.model_fields or bool(Training.use_of(setting) & Use.TABLES)


def _drop_searched_values(
    name: str, champion: Manifest, training: dict[str, Any], searched: Collection[str]
) -> dict[str, Any]:
    """The champion's settings without those that its or the newest search found, and without searchable defaults."""
    defaults = list_defaults(champion.parameters.training.model, champion.dataset.defaults)
    searched_fields = {*searched, *tuning_result.read(name).settings}
    return {
        field: value
        for field, value in training.items()
        if field not in searched_fields and (field not in SEARCHED or value != defaults[field])
    }


def _split(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The split options: those given now, or else those that the newest version fixed, even if it is not the champion.

    A window is kept only with a split by time.
    """
    split = find_fixed(name).split
    options: dict[str, Any] = dict.fromkeys(SPLITS.values()) | {"test": split.test}
    if split.rule in SPLITS and not SPLITS.values() & given.keys():
        options[SPLITS[split.rule]] = split.column
    return options if (options | given)["time_column"] else options | {"window": NO_WINDOW}


def leave_split_open(data: dict[str, Any]) -> None:
    """Remove the split from data options, so that a run takes the rule that the newest version has fixed by then.

    A window needs its time column, so this is kept.
    """
    is_open = data.get("window", NO_WINDOW) == NO_WINDOW
    for option in ("test", *SPLITS.values()) if is_open else ("test",):
        data.pop(option, None)


def require_same_kind(parameters: LearningParameters) -> None:
    """A name keeps its model, its kind of data and its target; a new one is not that of a dataset.

    Raises:
        UsageError: the parameters would change one of them, or begin a name of that kind.
    """
    kept = find_newest(parameters.name)
    if kept is None and parameters.name in BOOK_DATASETS.values():
        found = f"{parameters.name} is the name of the book's data"
        raise UsageError(found, "a name that no dataset has", "give the model another --name")
    if kept is None:
        return
    target, data, trained = kept.recipe.target, parameters.data, kept.parameters.training
    then = trained.model, KINDS[kept.dataset.find_use(kept.recipe)], target.name if target else None
    now = parameters.training.model.value, KINDS[data.use], data.target
    if now != then:
        meant = f"gradmill retrain {parameters.name}" if parameters.name not in [*ModelName] else "gradmill retrain"
        found, expected = (", ".join(filter(None, each)) for each in (now, then))
        raise UsageError(
            f"{parameters.name} as {found}",
            f"{expected}, as its version {kept.version} was trained",
            f"type {meant}, or give the model another --name",
        )


# Data that need no training


class SourceFingerprint(RootDocument):
    """How own files looked when last read, and with which options; the digest of their data, and prepared files."""

    look: str
    options: dict[str, Any]
    digest: Sha256
    rows: FileRef | None
    files: tuple[FileRef, ...]


def must_train(parameters: RetrainParameters) -> bool:
    """Whether training is required, as far as this is known before the data are inspected."""
    is_chosen_anew = parameters.data.new_recipe and bool(parameters.use & Use.TABLES)  # a shape may be another one
    return parameters.force or is_chosen_anew or not model_folder.list_versions(parameters.name)


def remember_files(parameters: RetrainParameters, raw: RawDataset, prepared: PreparedDataset) -> None:
    """Record what own files hold for later runs that find them unchanged; nothing is recorded for the book's data."""
    if raw.look:
        files = (prepared.train, prepared.test, prepared.raw_test, prepared.validation, prepared.rows)
        SourceFingerprint(
            look=raw.look,
            options=_list_options(parameters),
            digest=prepared.digest,
            rows=prepared.rows,
            files=tuple(filter(None, files)),
        ).write(artifact_paths.look(raw.name))
        trained = artifact_paths.trained_files(raw.name, prepared.digest)
        if not trained.exists():  # a version of these rows was trained on the files that first had them
            TrainedFiles(files=raw.paths or (raw.source,)).write(trained)


def find_by_files(run: RunFolder, parameters: RetrainParameters, raw: RawDataset) -> PublishedModel | None:
    """The version that was made of these files, as far as this can be known without reading them.

    Raises:
        DataError: that version is damaged.
    """
    path = artifact_paths.look(raw.name)
    if parameters.data.new_recipe or not path.is_file():
        return None
    try:
        last = SourceFingerprint.read(path)
        if (last.look, last.options) != (raw.look, _list_options(parameters)):
            return None
        for file in last.files:
            verified_files.check(file)
    except DataError as fault:
        print_message(f"data are read again: {fault.found}")
        return None
    return find_by_rows(run, parameters, last, "whose data look untouched since they were read")


def _list_options(parameters: RetrainParameters) -> dict[str, Any]:
    """The options that make a different model, and the test share: reading shows whether the name has fixed another."""
    return list_options(parameters) | {"test": parameters.data.test}


def find_by_rows(
    run: RunFolder,
    parameters: RetrainParameters,
    data: PreparedDataset | SourceFingerprint,
    detail: str = "which was trained on the same rows with the same options",
) -> PublishedModel | None:
    """The version made of these rows, in any order, files and format; the champion if too few rows are new.

    It is reported, and recorded where a stage would record its result.

    Raises:
        DataError: that version is damaged.
    """
    if must_train(parameters):
        return None
    name = parameters.name
    with locks.hold_model(name):
        current = model_folder.find_champion(name)
        champion = model_folder.find_manifest(name, current.version) if current else None
        kept = _find_made_of(parameters, data.digest, champion)
        if kept is None and champion and (too_few := _count_too_few(parameters, data.rows, champion)):
            kept, detail = champion, too_few
        if kept is None:
            return None
        pointer.sweep(name)
        verification.verify_version(name, kept.version)
    model = FileRef(path=artifact_paths.version(name, kept.version) / ONNX, sha256=kept.files[ONNX])
    found = PublishedModel(outcome="unchanged", name=name, version=kept.version, model=model, detail=detail)
    print_message(f"{name} version {found.version}, {detail}: unchanged, nothing is trained", short="")
    run.note(stages={"unchanged": found.model_dump(mode="json")})
    return found


def _find_made_of(parameters: RetrainParameters, digest: str, champion: Manifest | None) -> Manifest | None:
    """The champion if it was made so, else the newest such former champion, which is not promoted again."""
    name = parameters.name
    newest = (model_folder.find_manifest(name, number) for number in model_folder.list_versions(name)[::-1])
    for kept in itertools.chain([champion] if champion else [], newest):  # read lazily, until one matches
        is_same = kept.dataset.digest == digest and _has_same_options(kept, parameters)
        if is_same and pointer.was_champion(name, kept.version):
            return kept
    return None


def _count_too_few(parameters: RetrainParameters, rows: FileRef | None, champion: Manifest) -> str:
    """In words, how many rows are new to the champion if fewer than ``--min-new-rows``; else empty."""
    from tasks.data import row_hash  # not at the top, because it imports numpy

    least = parameters.data.min_new_rows
    if not least or rows is None or parameters.data.new_recipe or not _has_same_options(champion, parameters):
        return ""
    if champion.dataset.rows is None:
        reason = f"version {champion.version} has no row digests"
        print_message(f"trained without counting new rows (--min-new-rows {least:,}): {reason}")
        return ""
    fresh = row_hash.count_new_rows(rows, champion.dataset.rows)
    return f"with {pluralize(fresh, 'new row')} since, fewer than --min-new-rows {least:,}" if fresh < least else ""


def _has_same_options(version: Manifest, parameters: RetrainParameters) -> bool:
    """Whether a version was given the same options, so that ``auto`` equals ``auto`` on any date.

    Options of the split, if any is given, must match the version's rule; without them the name's rule holds.
    """
    rules = {rule: getattr(parameters.data, option) for rule, option in SPLITS.items()}
    split = version.dataset.split  # None: the book's
    if split and any(column and (rule, column) != (split.rule, split.column) for rule, column in rules.items()):
        return False
    then = version.parameters.model_dump(mode="json")
    document = {
        "name": parameters.name,
        "training": then["training"],
        "data": Data.drop_removed(then["data"]) | {"source": parameters.data.source},
    }
    try:
        return list_options(RetrainParameters.model_validate(document)) == list_options(parameters)
    except ValidationError:  # written by another version of Gradmill
        return False
