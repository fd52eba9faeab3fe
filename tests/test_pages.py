"""Pages and model cards: what they say, and that what users and their data say is text and no more on every one."""

import base64
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from documents import retrain
from flows.pages import run_pages
from table_files import houses, written
from tasks.data.io import pictures
from tasks.data.report import ColumnReport, DataReport, Finding
from tasks.errors import DataError
from tasks.machine.words import escape_control_characters, format_number
from tasks.parameters import Training
from tasks.records import GateVerdict
from tasks.store import artifact_paths, model_folder, state
from tasks.store.model_folder import Manifest
from tasks.store.page_rendering import (
    Code,
    Link,
    Page,
    PageTable,
    Section,
    Strong,
    markdown_line,
    render_html,
    render_markdown,
)
from tasks.store.version_page import describe_interval, describe_version, find_html, render_card

NAME = "linear-regression"
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


# Pages in which users and their data say something


def of_data(text: str) -> Page:
    columns = (ColumnReport(name=text, role="feature", kind=text, num_levels=1, levels=(text,)),)
    finding = Finding(severity="warning", rule="constant", found=text, action=text)
    return DataReport(name="mine", summary=text, columns=columns, findings=(finding,), classes={text: 3}).page()


def pixels(*shape: int) -> dict[str, Any]:
    return {"kind": "pixels", "shape": shape, "scale": 1 / 255}


def of_a_version(text: str, names: Sequence[str] = (), recipe: dict[str, Any] | None = None) -> tuple[Page, Manifest]:
    """A classifier of a table, or of images, and its manifest."""
    names = [*names] or [text, "dog"]
    column = {"name": text, "kind": "category", "levels": [text, "b"], "counts": [60, 40]}
    split = {"rule": "rows", "test": 0.2} if recipe else {"rule": "group", "column": text, "test": 0.2}
    file = {"path": "a", "sha256": "0" * 64}
    dataset = {
        "name": "mine", "train": file, "test": file,
        "title": text, "identifier": "mine", "digest": "0" * 64, "task": "classification", "class_names": names,
        "class_counts": [100 + at for at in range(len(names))], "num_train": 1234, "num_test": 300, "split": split,
        "ignored": [text], "left_out": [text],
    }  # fmt: skip
    figures = {
        "train_loss": 0.5, "test_loss": 0.6, "train_accuracy": 0.95, "test_accuracy": 0.9, "objective_loss": 0.6,
        "baseline_loss": 1.5, "precision": dict.fromkeys(names, 0.5),
        "recall": {name: 1 - at / 1000 for at, name in enumerate(names)},
    }  # fmt: skip
    gate = GateVerdict(name="champion_recall", value=1, maximum=0.5, passed=False, detail=text)
    document = {
        "name": "mine", "version": 3, "created_at": "2026-11-07T12:00:00+00:00", "run": "one", "code": "0" * 64,
        "dataset": dataset, "device": "cpu", "metrics": figures, "profile": {},
        "tolerances": {"sample": 2e-5, "parity": 1e-5},
        "files": dict.fromkeys(("model.onnx", "metadata.json", "sample.npz"), "0" * 64),
        "recipe": recipe or {"kind": "columns", "columns": [column]},
        "gates": [gate.model_dump()],
        "parameters": {"name": "mine", "data": {}, "tuned": False, "training": Training().model_dump(mode="json")},
        "trained": {"num_examples": 1234, "num_epochs": 3, "kept_epoch": 3, "collinear": [text]},
        "packages": {text: text}, "platform": text,
    }  # fmt: skip
    finding = Finding(severity="warning", rule="missing", column=text, found=text)
    columns = (ColumnReport(name=text, role="feature", kind="category"),)
    report = None if recipe else DataReport(name="mine", summary="", columns=columns, target=text, findings=(finding,))
    manifest = Manifest.parse(json.dumps(document).encode(), "a manifest")
    return describe_version(manifest, {"class-weights.png": b""}, report), manifest


def of_anything(text: str) -> Page:
    """Each place that a page has for text."""
    parts = text, Code(text), " ", Strong(text), " ", Link(text, "/here")
    table = PageTable(((text, Code(text)), (parts, Link(text, "/here"))), (text, "head"))
    return Page(text, text, (Section("Title", (text, parts, Strong(text), Code(text), table)),), ((text, "/here"),))


PAGES: dict[str, Callable[[str], Page]] = {
    "data": of_data,
    "version of a table": lambda text: of_a_version(text)[0],
    "version of images": lambda text: of_a_version(text, recipe=pixels(30, 20))[0],
    "failed prediction": lambda text: run_pages.failed_prediction_page("mine", DataError(text, text, text), text),
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
    """Every element that a browser makes of a page, with its attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        self.words += data

    @property
    def structure(self) -> list[tuple[str, ...]]:
        """Without texts, but with what it fetches or leads to."""
        leads = ("href", "src", "scope", "id")
        return [(tag, *(has.get(name, "") for name in leads), *sorted({*has} - {"class"})) for tag, has in self.found]


def as_shown(text: str) -> str:
    return " ".join(escape_control_characters(text).split())


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_name_makes_nothing_that_a_plain_one_does_not(kind: str) -> None:
    text = HOSTILE[kind]
    for name, make in PAGES.items():
        page, plain = make(text), make("plain")
        as_markdown, as_html = render_markdown(page), Html(render_html(page))
        assert markdown_structure(as_markdown) == markdown_structure(render_markdown(plain)), name
        assert as_html.structure == Html(render_html(plain)).structure, name
        assert as_shown(text) in as_html.words, name
        if kind != "code":  # which has other quotes within code
            assert as_shown(text) in markdown_words(as_markdown), name
        assert not {"\x1b", "\u202e"} & {*as_markdown, *as_html.words}
    page, manifest = of_a_version(text)
    body = render_card(page, manifest).split("\n---\n\n", 1)[1]
    assert body == render_markdown(page, embed=False), "below the front matter"
    assert markdown_structure(markdown_line(text)) == ["paragraph_open", "inline", "paragraph_close"]


@pytest.mark.parametrize("text", ["a`b", "`", "``a` b`` |"])
def test_code_holds_its_backticks(text: str) -> None:
    page = render_markdown(Page("Title", Code(text), ()))
    inline = [token for block in MarkdownIt("commonmark").parse(page) for token in block.children or ()]
    assert [token.content.strip() for token in inline if token.type == "code_inline"] == [text]


def test_credentials_and_what_is_empty_are_left_out_and_what_is_endless_is_cut() -> None:
    blocks = Code("https://mia:secret@x.org/b"), "a" * 10_000, "\udcff"
    page = Page("s3://mia:secret@x.org/a", "", (Section("", blocks),))
    for shown in (render_markdown(page), render_html(page)):
        assert "secret" not in shown
        assert "x.org/b" in shown
        assert "udcff" in shown.encode().decode(), "of a file's name that is no UTF-8"
        assert len(shown) < 10_000
    page = Page("a", "", (Section("B", ("", None, PageTable(()))), Section("C", ("d",))))
    assert render_markdown(page) == "# a\n\n## C\n\nd\n"
    assert [each for each in ("C", "B") if f">{each}</h2" in render_html(page)] == ["C"]


# Model cards


def front_of(card: str) -> Any:
    """The front matter, which must be one."""
    return yaml.safe_load(card.split("---\n", 2)[1])


def test_the_model_card_has_hugging_face_front_matter(two_versions: None) -> None:
    folder = artifact_paths.version(NAME, 1)
    card = (folder / "README.md").read_text()
    front = front_of(card)
    assert {"license", "library_name", "tags", "datasets", "metrics", "model-index"} <= set(front)
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"name": "Synthetic linear data", "type": "synthetic-linear", "split": "test"}
    assert result["metrics"][0]["value"] == pytest.approx(2 * state.read_name(NAME).rows[0]["test_loss"])
    for picture in ("learning-curve.png", "regression.png"):
        assert f"]({picture})" in card
        assert (folder / picture).is_file()


def test_the_card_of_a_table_says_what_was_in_it_how_it_was_split_and_what_it_is_held_against(
    prefect_api: str, tmp_path: Path
) -> None:
    drawn, numbers = houses(1234), np.arange(1234)
    columns = dict(zip(drawn.column_names, drawn.columns, strict=True))
    columns |= {"id": numbers, "sold on": numbers.astype("M8[D]"), "customer": numbers % 60}
    columns["price"] = pa.array(drawn["price"].to_numpy() / 1e5, mask=numbers < 34)
    given = (
        "--ignore",
        "id",
        "--no-date-parts",
        "--split-by",
        "customer",
        "--weight-decay",
        "0.25",
        "--shape",
        "linear",
    )
    file = written(tmp_path / "houses.parquet", columns)
    figures = retrain("linear-regression", "houses", file, *given, target="price")["metrics"]
    card = (artifact_paths.version("houses", 1) / "README.md").read_text()
    front = front_of(card)
    assert (front["datasets"], front["pipeline_tag"]) == (["houses"], "tabular-regression")
    told = {name: format_number(figures[f"{name}_loss"], 5) for name in ("objective", "baseline")}
    effect = format_number(figures["weights"]["city"]["Ulm"], 5)
    for line in (
        "| target | price |",
        "| categories (1) | city |",
        "| ignored | id |",
        "| left out: dates, ids and the like | sold on |",
        "| rows | 1,234, of which 34 without a target were left out |",
        "| split | 1,020 for training, 180 for the test, by a hash of the value of customer |",
        "| **warning** | area is missing in 10.3 % of the rows |",
        "| shape | linear |",
        "| penalties | slopes 0.25, levels 0.25 |",
        "| weight decay (section 4.5) | 0.25 |",
        f"| this model | {told['objective']} |",
        f"| baseline | {told['baseline']} |",
        f"| city = Ulm | {effect} | {effect} |",
        "![Effects](effects.png)",
        f"| R² | {format_number(figures['r2'])} (95 % interval {describe_interval(figures['r2_interval'])}) |",
    ):
        assert line in card.splitlines(), line
    assert "inside the file. A row has one entry for each column, in the order of `columns` in the file's" in card


def card_of_images(names: Sequence[str] = ("cat", "dog|$"), shape: tuple[int, ...] = (30, 20)) -> str:
    return render_card(*of_a_version("pets", names, pixels(*shape)))


def test_the_card_of_images_says_size_channels_split_and_every_class_in_the_order_of_labels() -> None:
    card = card_of_images()
    for line in (
        "pipeline_tag: image-classification",
        "| size | 30 by 20 pixels, height by width |",
        "| channels | grey: 0.299 red + 0.587 green + 0.114 blue |",
        "| split | 1,234 for training, 300 for the test, by a hash of their pixels |",
        "| 0 | cat | 100 | 0.500 | 1.000 |  |",
        r"| 1 | dog\|\$ | 101 | 0.500 | 0.999 |  |",
        "| baseline | 1.5 |",
        "![Weights of each class](class-weights.png)",
        "| train accuracy, test accuracy | 0.9500, 0.9000 |",
    ):
        assert line in card.splitlines(), line
    assert "0.5, 0.6 (cross-entropy in nats)" in card
    assert "| reference |" not in card
    assert "| channels | RGB |" in card_of_images(shape=(30, 20, 3)).splitlines()
    for each, tag in ((card, "image-classification"), (render_card(*of_a_version("iris")), "tabular-classification")):
        front = front_of(each)
        assert front["pipeline_tag"] == tag
        assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.9}]


def test_of_very_many_classes_those_with_the_smallest_recall_are_told() -> None:
    card = card_of_images([f"class {number}" for number in range(1000)])
    told = re.findall(r"^\| (\d+) \| class", card, re.MULTILINE)
    assert told == [str(number) for number in range(999, 949, -1)]
    assert "The 50 of 1000 classes with the smallest recall; `labels.txt` has all" in card


@pytest.mark.parametrize("shape", [(30, 20), (30, 20, 3)])
def test_the_lines_of_a_card_make_of_a_photograph_what_prediction_makes_of_it(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies on its side, as telephones write them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8))
    photo.save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(import numpy\nfrom PIL.*?)```", card_of_images(shape=shape), re.DOTALL)
    found: dict[str, Any] = {}
    exec(lines, found)  # noqa: S102  (what a reader would do)
    expected, _ = pictures.decode(tmp_path / "photo.jpg", shape)
    assert found["images"].dtype == np.uint8
    np.testing.assert_array_equal(found["images"], expected[None])


# The page of a version


def test_a_version_has_its_page_with_every_picture_inside_which_asks_nobody_for_anything(two_versions: None) -> None:
    found = find_html(NAME, 2)
    assert found == artifact_paths.version(NAME, 2) / "index.html"
    page = Html(found.read_text())
    shown = {has["src"] for tag, has in page.found if tag == "img"}
    assert all(each.startswith("data:image/png;") for each in shown)
    for name in ("learning-curve.png", "regression.png"):
        assert f"data:image/png;base64,{base64.b64encode((found.parent / name).read_bytes()).decode()}" in shown
    manifest = model_folder.find_manifest(NAME, 2)
    for words in (*(gate.name for gate in manifest.gates), manifest.files["model.onnx"], manifest.dataset.digest):
        assert words in page.words
    assert not {"script", "link"} & {tag for tag, _ in page.found}
    anchors = {f"#{has.get('id')}" for _, has in page.found}
    for address in (has["href"] for tag, has in page.found if tag == "a"):
        assert address in anchors or (found.parent / address).is_file()
    assert "default-src 'none'" in [has for tag, has in page.found if tag == "meta"][1]["content"]


def test_a_damaged_page_is_not_shown(two_versions: None) -> None:
    path = artifact_paths.version(NAME, 1) / "index.html"
    path.chmod(0o644)
    path.write_text("<p>all is well")
    with pytest.raises(DataError, match=re.escape(str(path))):
        find_html(NAME, 1)
