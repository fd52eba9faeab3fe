"""The tables of an overview: predictions, versions, changes, disk."""

from collections.abc import Iterator
from pathlib import Path

from flows.story import overview_words as words
from flows.story.blocks import said
from tasks.store.history import Change
from tasks.store.predictions import Job
from tasks.store.runs import list_changed
from tasks.store.state import NameState

BY_ITSELF = ("model", "device", "seed", "implementation")  # settings with a place of their own, or that do not matter
JOBS = ("finished (UTC)", "version", "input", "rows", "rejected", "drift", "index", "against the truth")


def job(of: Job) -> tuple[str, ...]:
    """One batch prediction, below ``JOBS``."""
    index = of.drift.index if of.drift else {}
    return (
        words.moment(of.finished_at or ""),
        str(of.model.version),
        "its own test split" if words.is_own_test_split(of) else said(Path(of.input.path).name),
        f"{of.rows - (of.rejects or 0):,}",
        f"{of.rejects or 0:,}",
        of.drift.verdict if of.drift else "",
        ", ".join(f"{said(name)} {value:.3f}" for name, value in index.items()),
        words.truth(of),
    )


SHOWN = 20  # versions, beside those that are marked
VERSIONS = ("version", "published", "figures", "settings", "seed", "rows", "data", "size", "")


def versions(facts: NameState) -> Iterator[tuple[str, ...]]:
    """The newest versions and those that are marked, below ``VERSIONS``."""
    newest = facts.numbers[-SHOWN:]
    for number, _, size, manifest in facts.versions[::-1]:
        mark = _mark(facts, number)
        if number not in newest and not mark:
            continue
        training = manifest.parameters.training.model_dump(mode="json")
        settings = list_changed(training, manifest.dataset.is_own)
        told = (f"{key.replace('_', ' ')} {value}" for key, value in settings.items() if key not in BY_ITSELF)
        yield (
            str(number),
            words.moment(manifest.created_at),
            words.figures(manifest),
            said(", ".join([manifest.parameters.training.implementation, *told])),
            str(training.get("seed", "")),
            f"{manifest.dataset.num_train + manifest.dataset.num_test:,}",
            manifest.dataset.digest[:8],
            words.size(size),
            mark,
        )


def _mark(facts: NameState, number: int) -> str:
    pointer = facts.pointer
    if pointer is None:
        return ""
    return "champion" if pointer.version == number else "held" if number in pointer.held else ""


CHANGES = ("when", "what", "champion", "why", "by", "versions")  # Prefect's UI cuts wide tables at the right


def change(made: Change) -> tuple[str, ...]:
    """One change, below ``CHANGES``."""
    what = f"{made.what} (interrupted)" if made.interrupted else made.what
    champion = f"{made.step}{', frozen' * made.frozen}"
    numbers = ", ".join(map(str, made.versions))
    return words.moment(made.at), said(what), champion, said(made.reason), said(made.by), numbers


def disk(facts: NameState) -> Iterator[tuple[str, str]]:
    """What the name takes, and what is free."""
    found = facts.disk
    parts = {"versions": found.versions, "data": found.data, "runs": found.runs, "predictions": found.predictions}
    told = ", ".join(f"{part} {words.size(number)}" for part, number in parts.items())
    yield facts.name, f"{words.size(found.of_name)} ({told})"
    free, total = found.left
    yield "free", f"{words.size(free)} of {words.size(total)}, {free / total:.0%}"
