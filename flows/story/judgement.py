"""What a judgement of a kept version tells: rows for the terminal, a page for the Prefect UI."""

from collections.abc import Iterator

from flows.story import periods
from flows.story.blocks import said, table
from flows.story.periods import WORDS
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine.words import counted, readable

WORST = 10  # classes that are told
Rows = list[tuple[str, ...]]


def headline(result: EvaluationResult) -> str:
    """What was judged by what."""
    return f"{result.name} version {result.version} on {counted(result.rows, 'row')}"


def in_words(result: EvaluationResult) -> tuple[str, str]:
    """For the run's name, and for its first tag: whether it is worse, and the figure by which it is known."""
    name, value = next(iter(result.metrics.items()))
    verdict = "worse" if result.worse else "as published"
    return f"{verdict}, {WORDS[name]} {readable(value)}", f"{readable(value)} {verdict}"


def facts(result: EvaluationResult) -> Iterator[tuple[str, str]]:
    """What was left out, and what must be known of the rows."""
    if result.unlabelled:
        yield "left out", f"{counted(result.unlabelled, 'row')} without a label"
    if result.broken:
        yield "broken", f"{counted(result.broken, 'image')} that cannot be read"
    if result.trained_on is None:
        yield "trained on", "not known which of these rows"
    elif result.unseen:
        yield "trained on", f"{counted(result.trained_on, 'row')}, which are left out"
    elif result.trained_on:
        yield "trained on", f"{result.trained_on:,} of these rows: --unseen leaves them out"
    else:
        yield "trained on", "none of these rows"
    for change in result.changes:
        yield "data", change.sentence
    if result.worse:
        yield "worse", f"than at publication, beyond chance (95 %): {', '.join(WORDS[name] for name in result.worse)}"


def figures(result: EvaluationResult) -> Rows:
    """Each figure with its interval, and at publication; of many classes those of the smallest recall."""
    rows: Rows = [
        (
            WORDS[name],
            readable(value),
            periods.between(result.intervals[name]),
            _number(result.published.get(name)),
        )
        for name, value in result.metrics.items()
    ]
    for name in sorted(result.recall, key=lambda name: result.recall[name])[:WORST]:
        found = readable(result.recall[name]), periods.between(result.recall_intervals[name])
        rows.append((f"recall of {name}", *found, _number(result.published_recall.get(name))))
    return rows


def page(result: EvaluationResult) -> str:
    """The Markdown page."""
    head = ("", "now", "95 % interval", "at publication")
    of_data = table(("", ""), (tuple(map(said, row)) for row in facts(result)))
    blocks = [f"# {headline(result)}", of_data, table(head, (tuple(map(said, row)) for row in figures(result)))]
    if result.periods:
        blocks += ["## By period", table(periods.head(result), periods.rows(result.periods))]
    return "\n\n".join(blocks)


def _number(value: float | None) -> str:
    return "" if value is None else readable(value)
