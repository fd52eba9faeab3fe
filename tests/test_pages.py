"""What users and their data say is text and no more, on every page, as Markdown and as HTML."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt

from candidate import job_document
from flows.pages import run_pages
from flows.pages.overview import list_sections
from flows.pages.report import RetrainReport
from tasks.batch.plan import Version
from tasks.data.recipe import Column, Columns
from tasks.data.report import ColumnProfile, ColumnReport, DataReport, Finding
from tasks.errors import DataError
from tasks.judging.evaluation_result import EvaluationResult
from tasks.machine.words import printable
from tasks.parameters import Training
from tasks.records import GateVerdict, Prediction
from tasks.serving import contract
from tasks.serving.drift import Histogram
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, predictions
from tasks.store.history import Change
from tasks.store.page import Code, Link, Page, PageTable, Section, Strong, markdown_line, render_html, render_markdown
from tasks.store.predictions import Job
from tasks.store.state import Fault, NameState
from tasks.store.tuned import Searched, Trial, Tuned
from tasks.store.version_page import describe_version, render_card

HOSTILE = {
    "element": "</td></p><script>alert(1)</script><img src=//x.org onerror=alert(1)>",
    "cell": "a | b \\| c \\\\| d |",
    "code": "`a` ```b` ~~~",
    "link": "](javascript:alert(1)) [c](//x.org) ![d](e.png) <javascript:f>",
    "lines": "a\n\n# b\n\n- c\r\n    d\n---",
    "entity": "&lt;script&gt; & <b> &#60;",
    "right to left": "\u202egpj.exe\u2066 אב",
    "template": "{{ 7 * 7 }} {% for a in b %}",
    "stars": "*a* **b** _c_ __d__ ~~e~~ $f$",
    "heading": "# a",
    "rule": "---",
    "list": "- a",
    "numbers": "1. a",
    "address": "www.x.org https://x.org a@x.org <https://x.org>",
    "control": "\x1b[2J\x00\x9b",
}
PLAIN = "plain"


def of_data(text: str) -> Page:
    columns = (ColumnReport(name=text, role="feature", kind=text, num_levels=1, levels=(text,)),)
    finding = Finding(severity="warning", rule="constant", found=text, action=text)
    return DataReport(name="mine", summary=text, columns=columns, findings=(finding,), classes={text: 3}).page()


def of_a_version(text: str, is_images: bool) -> tuple[Page, dict[str, Any]]:
    column = {"name": text, "kind": "category", "levels": [text, "b"], "counts": [60, 40]}
    recipe: dict[str, Any] = {"kind": "columns", "columns": [column]}
    split = {"rule": "group", "column": text, "test": 0.2}
    if is_images:
        recipe, split = {"kind": "pixels", "shape": (30, 20), "scale": 1 / 255}, {"rule": "rows", "test": 0.2}
    names = [text, "dog"]
    dataset = {
        "title": text, "identifier": "mine", "digest": "0" * 64, "task": "classification", "class_names": names,
        "class_counts": [7, 8], "num_train": 12, "num_test": 3, "split": split, "ignored": [text], "left_out": [text],
    }  # fmt: skip
    each = dict.fromkeys(names, 0.5)
    metrics = {
        "train_loss": 0.5, "test_loss": 0.6, "test_accuracy": 0.9, "precision": each, "recall": each,
        "confusion_matrix": [[1, 2], [3, 4]],
    }  # fmt: skip
    gate = GateVerdict(name="champion_recall", value=1, maximum=0.5, passed=False, detail=text)
    manifest = {
        "name": "mine", "version": 3, "dataset": dataset, "device": "cpu", "recipe": recipe, "metrics": metrics,
        "gates": [gate.model_dump()], "parameters": {"training": Training().model_dump(mode="json")},
        "trained": {"num_examples": 12, "collinear": [text]}, "packages": {text: text}, "platform": text,
    }  # fmt: skip
    finding = Finding(severity="warning", rule="missing", column=text, found=text)
    columns = (ColumnReport(name=text, role="feature", kind="category"),)
    report = DataReport(name="mine", summary="", columns=columns, target=text, findings=(finding,))
    signature = contract.Signature(
        inputs=(contract.Tensor(name="rows", dtype="float32", shape=(1,)),), outputs=TASKS["classification"].outputs(2)
    )
    metadata = contract.open_inference_metadata("mine", 3, signature)
    return describe_version(manifest, metadata, {}, report), manifest


def of_a_retrain(text: str) -> Page:
    gates = [GateVerdict(name="champion_recall", value=1, maximum=0.5, passed=False, detail=f"{text} ({text})")]
    return run_pages.retrain_page(
        RetrainReport(
            model="softmax-regression", name="mine", implementation="concise", outcome="refused", detail=text,
            version=None, champion=None, model_path=text, model_sha256="0" * 64, metrics={"test_loss": 0.5},
            gates=gates, prediction=None, mirror=None, device="cpu", provider=None, parameters={},
            seconds={"train": 1}, run=f"/{text}", data_changes=[Finding(severity="note", rule="drift", found=text)],
        )
    )  # fmt: skip


def hostile_job(text: str) -> Job:
    more: dict[str, Any] = {"drift": {"index": {"label": 0.4}, "maximum": 0.2, "verdict": "drift"}, "rows": 12}
    more |= {"profile": {"label": {"edges": (0.5,), "counts": (90, 10)}}, "shards": [[0, 0, 12]], "rejects": 2}
    more |= {"column_counts": {text: (9, 1, 0, 0)}, "column_drift": {text: 0.5}, "notes": {text: 3}, "accuracy": 0.75}
    document = job_document("mine", status="done") | more | {"finished_at": "2026-11-26T03:00:00+00:00"}
    document["input"]["path"] = f"/in/{text.replace('/', '')}"
    return Job.model_validate_json(json.dumps(document))


def of_a_prediction(text: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Page:
    column = Column(name=text, kind="category", levels=(text, "b"), counts=(1, 1))
    profile = ColumnProfile(name=text, levels=(0, 1), counts=(1, 9, 0, 0))
    reference = {"label": Histogram(edges=(0.5,), counts=(10, 90))}
    version = Version(TASKS["classification"], [text, "b"], reference, Columns(columns=(column,)), (profile,))
    monkeypatch.setattr(run_pages, "read_version", lambda _: version)
    monkeypatch.setattr(predictions, "find", lambda _: hostile_job(text))
    rejects = {"source": [text.replace("/", "")], "source_row": [1], f"id_{text}": [text], "reason": [text]}
    path = folder / "job"
    path.mkdir(exist_ok=True)
    pq.write_table(pa.table(rejects), path / "_rejects.parquet")
    facts = {"path": path, "job": "j", "rows": 10, "rejects": 2, "parts": 1, "name": "mine", "version": 1}
    result = Prediction(**facts, model_sha256="0" * 64, provider="CPU", drift=hostile_job("a").drift, seconds=1)
    return run_pages.prediction_page(result)


def of_an_evaluation(text: str) -> Page:
    rows = {"rows": 100, "metrics": {"accuracy": 0.5}, "intervals": {"accuracy": (0.4, 0.6)}, "recall": {text: 0.5}}
    rows |= {"recall_intervals": {text: (0.4, 0.6)}, "published": {"accuracy": 0.9}, "published_rows": 100}
    rows |= {"published_recall": {text: 0.9}, "name": "mine", "version": 1, "model_sha256": "0" * 64, "broken": 0}
    rows |= {"unlabelled": 0, "trained_on": 0, "unseen": False}
    rows["changes"] = [Finding(severity="warning", rule="drift", found=text)]
    return run_pages.evaluation_page(EvaluationResult.model_validate(rows))


def of_a_search(text: str) -> Page:
    settings: dict[str, float | int | str] = {"lr": 0.1, "schedule": text}
    tuned = Tuned(
        model="softmax-regression", dataset_digest="0" * 64, settings=settings, validation_losses=(0.1,),
        default_settings=settings, default_losses=(0.2,), num_trials=1, num_validation=9, seed=1, run="run",
    )  # fmt: skip
    trial = Trial(number=0, settings=settings, validation_loss=0.1, epochs=1, seconds=1.0, outcome="complete")
    return run_pages.search_page("mine", Searched(trials=(trial,), tuned=tuned), ())


def of_a_name(text: str) -> Page:
    change = Change.model_validate(
        {"at": "2026-11-07T12:00:00+00:00", "what": "promoted", "champion": 1, "versions": (1,), "frozen": False,
         "by": text, "reason": text}
    )  # fmt: skip
    faults = (Fault("run", "mine", text, text, text),)
    facts = NameState("mine", jobs=[hostile_job(text)], changes=(change,), source=text, mirror=text, faults=faults)
    return Page("mine", text, list_sections(facts, None))


def of_anything(text: str) -> Page:
    """Each place that a page has for text."""
    parts = text, Code(text), " ", Strong(text), " ", Link(text, "/here")
    table = PageTable(((text, Code(text)), (parts, Link(text, "/here"))), (text, "head"))
    return Page(text, text, (Section("Title", (text, parts, Strong(text), Code(text), table)),), ((text, "/here"),))


PAGES: dict[str, Callable[[str], Page]] = {
    "data": of_data,
    "version of a table": lambda text: of_a_version(text, is_images=False)[0],
    "version of images": lambda text: of_a_version(text, is_images=True)[0],
    "retrain": of_a_retrain,
    "failed prediction": lambda text: run_pages.failed_prediction_page("mine", DataError(text, text, text), text),
    "evaluation": of_an_evaluation,
    "search": of_a_search,
    "overview": of_a_name,
    "anything": of_anything,
}


def markdown_structure(page: str) -> list[str]:
    """Every element that a reader of Markdown makes of a page but text."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    inline = [[token, *(token.children or ())] for token in tokens]
    found = [f"{each.type} {each.attrGet('href') or ''}".strip() for several in inline for each in several]
    return [each for each in found if each not in ("text", "text_special")]


def markdown_words(page: str) -> str:
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    return "\n".join("".join(child.content for child in token.children) for token in tokens if token.children)


class Html(HTMLParser):
    """Every element that a browser makes of a page, with what it fetches or leads to; and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.structure: list[tuple[str, ...]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        written = sorted(name for name, _ in attrs if name != "class")
        leads = [value or "" for name, value in attrs if name in ("href", "src", "scope", "id")]
        self.structure.append((tag, *written, *leads))

    def handle_endtag(self, tag: str) -> None:
        self.structure.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.words += data


def as_shown(text: str) -> str:
    return " ".join(printable(text).split())


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_name_makes_nothing_that_a_plain_one_does_not(
    kind: str, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = HOSTILE[kind]
    made = PAGES | {"prediction": lambda word: of_a_prediction(word, monkeypatch, tmp_path)}
    for name, make in made.items():
        page, plain = make(text), make(PLAIN)
        as_markdown, as_html = render_markdown(page), Html(render_html(page))
        assert markdown_structure(as_markdown) == markdown_structure(render_markdown(plain)), name
        assert as_html.structure == Html(render_html(plain)).structure, name
        assert as_shown(text) in as_html.words, name
        if kind != "code":  # which has other quotes within code
            assert as_shown(text) in markdown_words(as_markdown), name
        assert "\x1b" not in as_markdown + as_html.words
        assert "\u202e" not in as_markdown + as_html.words


@pytest.mark.parametrize("text", ["a`b", "`", "``a` b`` |"])
def test_code_holds_its_backticks(text: str) -> None:
    (page,) = (render_markdown(Page("Title", Code(text), ())),)
    inline = [token for block in MarkdownIt("commonmark").parse(page) for token in block.children or ()]
    assert [token.content.strip() for token in inline if token.type == "code_inline"] == [text]


@pytest.mark.parametrize("kind", HOSTILE)
def test_front_matter_and_descriptions_hold_hostile_names_as_text(kind: str) -> None:
    page, manifest = of_a_version(HOSTILE[kind], is_images=False)
    body = render_card(page, manifest).split("\n---\n\n", 1)[1]
    assert body == render_markdown(page, embed=False)
    assert markdown_structure(markdown_line(HOSTILE[kind])) == ["paragraph_open", "inline", "paragraph_close"]


def test_credentials_are_left_out_and_what_is_endless_is_cut() -> None:
    blocks = Code("https://mia:secret@x.org/b"), "a" * 10_000, "\udcff"
    page = Page("s3://mia:secret@x.org/a", "", (Section("", blocks),))
    for shown in (render_markdown(page), render_html(page)):
        assert "secret" not in shown
        assert "x.org/b" in shown
        assert "udcff" in shown.encode().decode(), "of a file's name that is no UTF-8"
        assert len(shown) < 10_000


def test_what_is_empty_is_left_out() -> None:
    page = Page("a", "", (Section("B", ("", None, PageTable(()))), Section("C", ("d",))))
    assert render_markdown(page) == "# a\n\n## C\n\nd\n"
    assert "<h2" in render_html(page)
    assert ">B<" not in render_html(page)


def test_a_job_from_before_it_had_metrics_has_its_accuracy_on_the_page(artifacts: Path) -> None:
    folder = artifact_paths.predictions("0" * 16)
    folder.mkdir(parents=True)
    (folder / "_job.json").write_text(json.dumps(hostile_job("a").model_dump(mode="json")))
    page = render_markdown(run_pages.failed_prediction_page("mine", DataError("a", "b", "c"), None))
    assert "| accuracy 0.75 |" in page
    assert "| 10 | 2 |" in page, "rows that were predicted, and rejects"
