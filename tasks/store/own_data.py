"""Names that were trained before: what their versions fixed, how to train them again, and where own data are."""

import os
from collections.abc import Collection
from typing import Any, Literal

from pydantic import field_serializer, field_validator

from tasks.data.schema import find_schema
from tasks.errors import DataError, UsageError
from tasks.machine.words import nearest
from tasks.parameters import Data, Learned, ModelName, Use, is_name
from tasks.parameters.data import NO_WINDOW
from tasks.parameters.form import WORDS
from tasks.parameters.training import SEARCHED, list_defaults
from tasks.records import ChampionData
from tasks.store import artifact_paths, locks, reading, tuned
from tasks.store.documents import Document
from tasks.store.reading import Manifest

# Of a run's parameters what no document keeps: places, and what is done once.
NOT_KEPT: dict[str, Any] = {"sign_key": True, "data": {"source", "new_recipe", "accept_data"}}
NAME_SOURCE = "name the data with --data"
SPLITS = {"group": "split_by", "time": "time_column", "column": "split_column"}  # the option of each rule
KINDS = WORDS | {Use.TABLES: "own data"}
# Of the options those that make no other model: where it is trained and data are, how long to wait for more, what is
# done once; and the split, whose rule the name keeps, so that the data's digest has it.
OTHERS: dict[str, Any] = {
    "training": {"device"},
    "data": {"source", "min_new_rows", "new_recipe", "accept_data", "test", *SPLITS.values()},
}


KEPT_FRAMES = "datasets/"


class Source(Document):
    """``source.json``: where own data were read from, the one absolute path of a model's documents, and for how many.

    The rows that ``gradmill.fit`` keeps in ``datasets/`` are found wherever the store is.

    ``min_new_rows`` is here since a run that waits makes no manifest.
    """

    schema_version: Literal[1] = 1
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


class TrainedFiles(Document):
    """``<digest>.sources.json``: the files that data were read from, or where they are that are in no files."""

    schema_version: Literal[1] = 1
    files: tuple[str, ...]


def list_files(name: str, digest: str) -> tuple[str, ...]:
    """The files that a version was trained on, by the digest of its data; none where that was not noted.

    Raises:
        DataError: the note is damaged.
    """
    path = artifact_paths.trained_files(name, digest)
    return TrainedFiles.read(path).files if os.path.lexists(path) else ()


def remember(name: str, data: Data) -> None:
    """Let ``gradmill retrain NAME`` find own data again, and wait for as many new rows."""
    if data.source:
        path = artifact_paths.source(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Source(source=data.source, min_new_rows=data.min_new_rows).write(path)


def options(parameters: Learned) -> dict[str, Any]:
    """What makes a model of the same rows another one, as it was given."""
    return parameters.model_dump(mode="json", include={"training", "data"}, exclude=OTHERS)


def newest(name: str) -> Manifest | None:
    """The newest kept version's manifest: its columns' levels begin with those of every older one."""
    kept = reading.versions(name) if is_name(name) else []
    return reading.manifest(name, kept[-1]) if kept else None


def fixed(name: str) -> Any:
    """What the versions of a name fixed of its own data; None before the first, and of the book's data."""
    kept = newest(name)
    return kept and find_schema(kept.dataset, kept.recipe)


def of_champion(name: str) -> ChampionData | None:
    """What own data the champion of a name was made of; None before the first, and of the book's data."""
    pointer = reading.champion(name) if is_name(name) else None
    if pointer is None:
        return None
    kept = reading.manifest(name, pointer.version)
    asked = kept.parameters.model_dump(mode="json").get("data") or {}
    return ChampionData.of(kept.dataset, asked.get("window", NO_WINDOW))


def again(name: str, given: dict[str, Any], with_found: bool = False) -> dict[str, Any]:
    """The parameters of ``gradmill retrain NAME``: its champion's model, data and options, and what is given now.

    Settings that a search has found for the champion are left out, ``with_found`` they stay; the newest search has
    them if its settings go on to be used.

    Raises:
        UsageError: there is no such model.
        DataError: its manifest is damaged, or it is not known where its data are.
        EnvironmentProblem: a restore was begun here and not finished.
    """
    locks.refuse_half_restored()
    if not is_name(name) or not reading.versions(name):
        names = [each for each in reading.names() if each not in [*ModelName] and reading.versions(each)]
        kept, train = ", ".join(names) or "none yet", "train a new one: gradmill retrain MODEL --name NAME"
        to_do = nearest(name, [*ModelName, *names], f"name one of these, or {train}")
        raise UsageError(f"no model {name}", f"{' or '.join(ModelName)}, or a kept name: {kept}", to_do)
    champion = reading.manifest(name, reading.resolve(name, None))
    asked = champion.parameters.model_dump(mode="json")
    data = asked.get("data", {})
    if champion.dataset.split:
        now, path, known = given.get("data", {}), artifact_paths.source(name), {}
        if path.is_file():
            known = Source.read(path, NAME_SOURCE).model_dump(exclude={"schema_version"}, exclude_none=True)
        elif not now.get("source"):
            what = f"nothing says where the data of {name} are: no {path}"
            raise DataError(what, "the place of its data", NAME_SOURCE)
        data |= known | {"source": now.get("source") or known["source"]} | _split(name, now)
    training = asked["training"]
    is_tuned, found = given.get("tuned", asked.get("tuned", False)), (asked.get("found") or {}).get("fields", ())
    if is_tuned:
        training = _without_found(name, champion, found)
    elif not with_found:
        training = {field: value for field, value in training.items() if field not in found}
    parts = {"training": training, "data": data}
    repeated = {
        part: {key: value for key, value in values.items() if value is not None} | given.get(part, {})
        for part, values in parts.items()
    }
    return given | {"name": name, "tuned": is_tuned} | repeated


def _without_found(name: str, champion: Manifest, found: Collection[str]) -> dict[str, Any]:
    """The champion's settings but for what a search decides: what one has ``found``, the newest has, and defaults."""
    training = champion.parameters.training
    defaults = list_defaults(training.model, champion.dataset.defaults)
    searched = {*found, *tuned.read(name).settings}
    return {
        field: value
        for field, value in training.model_dump(mode="json").items()
        if field not in searched and (field not in SEARCHED or value != defaults[field])
    }


def _split(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options of the split: what is given now, or what the newest version fixed, be the champion an older one.

    No window stays without a split by time.
    """
    rule = fixed(name)
    options: dict[str, Any] = dict.fromkeys(SPLITS.values()) | ({"test": rule.split.test} if rule else {})
    if rule and rule.split.rule in SPLITS and not SPLITS.values() & given.keys():
        options[SPLITS[rule.split.rule]] = rule.split.column
    return options if (options | given)["time_column"] else options | {"window": NO_WINDOW}


def leave_split_open(data: dict[str, Any]) -> None:
    """Take the split out of data options: a run takes the rule that the newest version has fixed by then.

    A window needs its time column, and so that stays.
    """
    is_open = data.get("window", NO_WINDOW) == NO_WINDOW
    for option in ("test", *SPLITS.values()) if is_open else ("test",):
        data.pop(option, None)


def require_same_kind(parameters: Learned) -> None:
    """A name keeps its model, its kind of data and its target.

    Raises:
        UsageError: the parameters would change one of them.
    """
    kept = newest(parameters.name)
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
