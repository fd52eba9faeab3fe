"""``import gradmill``: rows of any kind to answers, what each column adds, and versions that were damaged."""

import asyncio
import base64
import decimal
import itertools
import json
import math
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

import gradmill
import served_images
import small_models
from conftest import REPOSITORY
from consumer import answers
from documents import load, retrain
from fenced_blocks import blocks
from gradmill import training
from gradmill.model import read_weights
from prediction_jobs import added_by_hand
from small_models import CITIES, MODELS
from store_state import damage, seal_all
from table_files import houses, written
from tasks.data.io import pictures
from tasks.store import artifact_paths, model_folder, pointer, version_page
from tasks.store.atomic import file_digest
from tasks.store.page_rendering import PagePicture

CLASSES = MODELS["segments"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with models of a table: a regression, and classes of which there are three, and two."""
    folder = tmp_path_factory.mktemp("models") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(folder))
        for name, class_names in MODELS.items():
            small_models.publish(name, class_names)
    return folder


@pytest.fixture
def published(models: Path, artifacts: Path) -> Path:
    """The same, this test's own."""
    shutil.copytree(models, artifacts)
    return artifacts


ROWS: list[dict[str, Any]] = [
    {"area": 98.5, "city": "Köln", "garden": True, "rooms": 3, "not a column": "x"},
    {"area": None, "city": None, "garden": None, "rooms": None, "not a column": "y"},
    {"area": 120.25, "city": CITIES[2], "garden": False, "rooms": 1, "not a column": None},
]
CODES = [[98.5, 1, 1, 2], [math.nan] * 4, [120.25, 2, 0, 0]]


def run(model: gradmill.Model, features: Any, output: str) -> Any:
    """What the file itself answers to codes, without gradmill."""
    path = artifact_paths.version(model.name, model.version) / "model.onnx"
    return answers(path, np.array(features, np.float32))[output]


def test_a_model_of_a_mirror_says_what_it_is(published: Path, tmp_path: Path) -> None:
    (published / "models").rename(tmp_path / "mirror")
    model = gradmill.load("segments", tmp_path / "mirror")
    assert (model.name, model.version, model.classes, model.is_current()) == ("segments", 1, CLASSES, True)
    assert [*model.columns] == [*small_models.COLUMNS]
    assert model.columns["city"].levels == CITIES
    page = model._repr_html_()
    assert all(text in page for text in ("segments version 1", "test_accuracy", "garden", "dear"))


def test_a_notebook_and_the_page_show_effects_and_of_an_older_version_its_coefficients(published: Path) -> None:
    folder, champion = artifact_paths.version("houses", 1), artifact_paths.champion("houses")
    picture = base64.b64encode((folder / "effects.png").read_bytes()).decode()
    for name in ("effects", "coefficients"):
        assert f'src="data:image/png;base64,{picture}" alt="{name}"' in gradmill.load("houses")._repr_html_()
        page = version_page.read_version("houses", 1)
        shown = next(section.blocks for section in page.sections if section.title == "Pictures")
        assert f"{name}.png" in [block.name for block in shown if isinstance(block, PagePicture)]
        if name == "effects":
            folder.chmod(0o755)
            (folder / "effects.png").rename(folder / "coefficients.png")
            seal_all(folder)
            changed = {"manifest_sha256": file_digest(folder / "manifest.json")}
            champion.write_text(json.dumps(load(champion) | changed))
    (folder / "coefficients.png").unlink()
    assert "<img" not in gradmill.load("houses")._repr_html_(), "where only the model was copied"


def test_a_version_of_before_says_that_it_is_not_the_champion(two_versions: None, artifacts: Path) -> None:
    old, new = gradmill.load("linear-regression", artifacts, version=1), gradmill.load("linear-regression")
    assert [(each.version, each.is_current()) for each in (old, new)] == [(1, False), (2, True)]
    pointer.rollback("linear-regression")
    assert old.is_current()


FRAMES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "mappings": lambda rows: rows,
    "a generator": iter,
    "pandas": pd.DataFrame,
    "pandas with its own missing values": lambda rows: pd.DataFrame(rows).convert_dtypes(),
    "pandas of categories": lambda rows: pd.DataFrame(rows).astype({"city": "category", "rooms": "category"}),
    "pandas Series": lambda rows: [row for _, row in pd.DataFrame(rows).iterrows()],
    "polars": pl.DataFrame,
    "an Arrow table": pa.Table.from_pylist,
    "an Arrow table of dictionaries": lambda rows: pa.table(
        {name: pa.array([row[name] for row in rows]).dictionary_encode() for name in rows[0]}
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_rows_of_every_kind_give_the_answers_of_the_file(kind: str, published: Path) -> None:
    model = gradmill.load("segments")
    probabilities = run(model, CODES, "probabilities")
    assert_array_equal(model.predict_proba(FRAMES[kind](ROWS)), probabilities)
    assert model.predict(FRAMES[kind](ROWS)).tolist() == [CLASSES[each] for each in probabilities.argmax(axis=1)]


def test_one_mapping_is_one_row_and_no_rows_are_none(published: Path) -> None:
    model = gradmill.load("houses")
    first = model.predict(ROWS[0])
    assert model.predict(pd.DataFrame(ROWS).iloc[0]) == first
    assert_array_equal(first, model.predict(ROWS)[:1])
    assert_allclose(model.predict(pd.DataFrame(ROWS * 1000))[::3], np.repeat(first, 1000), rtol=1e-6)
    for none in (ROWS[:0], pd.DataFrame(ROWS)[:0], pl.DataFrame(ROWS)[:0]):
        assert len(model.predict(none)) == 0
    assert gradmill.load("segments").predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.float32("nan"), np.datetime64("NaT", "s"), pd.NaT, pd.NA, decimal.Decimal("NaN")],
    ids=repr,
)
def test_missing_in_every_spelling_is_missing_in_every_column(published: Path, missing: Any) -> None:
    model, codes = gradmill.load("houses"), np.tile(CODES[0], (4, 1))
    np.fill_diagonal(codes, math.nan)
    rows = [ROWS[0] | {column: missing} for column in small_models.COLUMNS]
    expected = run(model, codes, "prediction")
    assert_array_equal(model.predict(rows), expected)
    for row, answer in zip(rows, expected, strict=True):
        frame = pd.DataFrame([row])
        assert model.predict(frame) == model.predict(frame.astype({"city": "category"})) == answer


WRONG_VALUES: list[tuple[dict[str, Any], str]] = [
    ({"area": "large"}, "area is 'large', not a number"),
    ({"area": True}, "area is True, not a number"),
    ({"area": [1]}, r"area is \[1\], not a number"),
    ({"area": 1e300}, r"area is 1e\+300, not a finite number"),
    ({"area": "inf"}, "area is 'inf', not a finite number"),
    ({"city": "Atlantis"}, "city is 'Atlantis', a level that the model has not seen"),
    ({"rooms": 7.0}, "rooms is 7.0, a level that the model has not seen"),
    ({"garden": "maybe"}, "garden is 'maybe', neither true nor false"),
    ({"garden": " True "}, "garden is ' True ', neither true nor false"),
    ({"city": ""}, "city is '', a level that the model has not seen"),
    ({"city": "Köln "}, "city is 'Köln ', a level that the model has not seen"),
    ({"city": ["Köln"]}, r"city is \['Köln'\], not a level"),
]
ROW_WITHOUT = {name: value for name, value in ROWS[0].items() if name not in ("city", "rooms")}
NO_ROWS = "not a mapping, mappings, a pandas or polars DataFrame, or an Arrow table"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        *(([ROWS[0], ROWS[0] | wrong], rf"{said}.* \(row 1, counted from 0\)") for wrong, said in WRONG_VALUES),
        *((rows, "column 'city', 'rooms' is missing") for rows in (ROW_WITHOUT, pd.DataFrame([ROW_WITHOUT]))),
        (pd.DataFrame([ROWS[0]]).rename(columns={"not a column": "area"}), "column 'area' occurs twice"),
        *((none, NO_ROWS) for none in (7, "text", [[1, 2]], np.zeros((2, 4)), pl.LazyFrame(ROWS))),
    ],
)
def test_a_value_that_its_column_does_not_take_is_named_and_a_column_that_is_missing_or_there_twice(
    rows: Any, said: str, published: Path
) -> None:
    model = gradmill.load("houses")
    for ask in (model.predict, model.explain):
        with pytest.raises(TypeError if said == NO_ROWS else ValueError, match=said):
            ask(rows, "reject")


def test_a_row_whose_prediction_is_no_finite_number_is_named(published: Path) -> None:
    with pytest.raises(ValueError, match=r"not a finite number, because a value is too large \(row 1, counted from 0"):
        gradmill.load("houses").predict([ROWS[0], ROWS[0] | {"area": -3.4028235e38}])


def test_an_unknown_level_has_the_average_effect_and_a_warning_that_counts_it_unless_it_is_asked_for(
    published: Path,
) -> None:
    model, rows = gradmill.load("segments"), [ROWS[0], *(ROWS[0] | {"city": city} for city in ("Atlantis", None))]
    rows.append(rows[1] | {"rooms": 7})
    with pytest.warns(UserWarning, match=r"^2 of 4 rows have .* has not seen \(city, rooms\); .*average") as warned:
        shares = model.predict_proba(rows)
    assert warned[0].filename == __file__
    codes = [[98.5, 1, 1, 2], [98.5, -1, 1, 2], [98.5, math.nan, 1, 2], [98.5, -1, 1, -1]]
    for answer in (shares, model.predict_proba(rows, unknown="average")):
        assert_array_equal(answer, run(model, codes, "probabilities"))
    with pytest.raises(ValueError, match="unknown is 'ignore', not"):
        model.predict(rows, unknown="ignore")  # type: ignore[arg-type]


# Pictures


def test_pictures_are_arrays_or_files_read_as_predict_reads_them(artifacts: Path, tmp_path: Path) -> None:
    folder = served_images.write(artifacts / "models")
    model = gradmill.load("softmax-regression")
    with np.load(folder / "3" / "sample.npz") as archive:
        sample = dict(archive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gradmill.pictures", None)  # as where there is no Pillow
        assert_allclose(model.predict_proba(sample["images"][2]), sample["probabilities"][2:3], rtol=1e-5)
    colour = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    for path, image in zip(paths, (colour, sample["images"][0]), strict=True):
        Image.fromarray(image).save(path)
    expected = model.predict_proba(np.stack([pictures.decode(path, (28, 28))[0] for path in paths]))
    for rows in (paths, [*map(str, paths)], [path.read_bytes() for path in paths]):
        assert_array_equal(model.predict_proba(rows), expected)
    assert model.predict(str(paths[0])) == [served_images.LABELS[expected[0].argmax()]]
    assert_array_equal(model.predict([*sample["images"]]), model.predict(sample["images"]))
    Image.fromarray(colour).save(tiff := tmp_path / "c.tiff")
    shape = r"of shape .*, not uint8 of shape \('n', 28, 28\)"
    for wrong, words in (
        *((wrong, shape) for wrong in (colour, [colour], sample["images"].astype(float), sample["images"][:, :9])),
        (Image.fromarray(colour), "picture 0 is Image, not the path or the content of a file"),
        ({"images": sample["images"]}, "picture 0 is dict, not the path"),
        ([paths[0], None], "picture 1 is NoneType"),
        (tmp_path, "is a folder, not a picture"),
        (tiff, r"c\.tiff cannot be used: none of PNG, .*GIF, or one that is damaged"),
    ):
        with pytest.raises(ValueError, match=words):
            model.predict(wrong)
    with pytest.raises(ValueError, match="pictures"):
        model.explain(sample["images"])


# The store


@pytest.mark.usefixtures("two_versions")
def test_what_is_not_there_or_damaged_is_an_error_that_says_what_to_do() -> None:
    name = "linear-regression"
    for other in ("palaces", f"../models/{name}", "", None):
        with pytest.raises(gradmill.DataError, match="there is no model"):
            gradmill.load(other)  # type: ignore[arg-type]
    with pytest.raises(gradmill.DataError, match="has no version 9\nexpected: one of 1, 2"):
        gradmill.load(name, version=9)
    for number, file in itertools.product((1, 2), ("model.onnx", "manifest.json", "weights.npz")):
        path = artifact_paths.version(name, number) / file
        whole = damage(path, 300)
        with pytest.raises(gradmill.DataError, match=f"{number}/{file} has changed\nexpected: SHA-256 "):
            gradmill.load(name, version=number)
        path.write_bytes(whole)
    for content in ("", "[]", "{}", '{"version": "2"}'):
        artifact_paths.champion(name).write_text(content)
        with pytest.raises(gradmill.DataError, match=r"champion\.json is damaged"):
            gradmill.load(name)


@pytest.mark.usefixtures("two_versions")
def test_a_champion_that_was_pruned_while_it_was_read_is_looked_up_again(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact_paths.champion("linear-regression")
    new = path.read_bytes()
    pointer.rollback("linear-regression")
    old, reads = path.read_bytes(), list[Path]()
    artifact_paths.version("linear-regression", 1).rename(artifacts / "pruned")

    def read_bytes(self: Path) -> bytes:
        reads.append(self)
        return original(self) if self != path else old if reads.count(path) < 3 else new

    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert gradmill.load("linear-regression").version == 2


# What each column adds


def odd_rows() -> list[dict[str, Any]]:
    """Rows of which some values are missing, and some levels unknown, at random."""
    cities, rooms = [*CITIES, "Atlantis", None], [*range(1, 7), None]
    values: dict[str, list[Any]] = {
        "area": [40.7, 98.5, 120.25, 200, None],
        "city": cities,
        "garden": [True, False, None],
        "rooms": rooms,
    }
    rng = np.random.default_rng(5)
    return [{name: each[rng.integers(len(each))] for name, each in values.items()} for _ in range(300)]


@pytest.mark.parametrize("name", MODELS)
def test_what_columns_add_is_what_arithmetic_says_and_adds_up_to_the_answer_in_an_older_version_too(
    name: str, published: Path
) -> None:
    """Of which the manifest has the weights, or the error says that it has none."""
    model, rows, classes = gradmill.load(name), odd_rows(), MODELS[name]
    added, manifest = model.explain(rows, unknown="average"), model_folder.find_manifest(name, 1)
    metrics = manifest.metrics.model_dump()
    outputs = [{key: metrics[key][each] for key in ("weights", "bias")} for each in classes] or [metrics]
    expected = np.array([[added_by_hand(row, output, manifest.recipe) for output in outputs] for row in rows])
    if len(classes) == 3:
        expected -= expected.mean(axis=1, keepdims=True)
    else:
        expected = expected[:, 1] - expected[:, 0] if classes else expected[:, 0]
    assert_allclose(added, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    total, answer = added.sum(axis=-1), model.predict_proba if classes else model.predict
    if classes:
        scores = np.column_stack([np.zeros(len(rows)), total]) if len(classes) == 2 else total
        total = scipy.special.softmax(scores, axis=1)
    assert_allclose(total, answer(rows, unknown="average"), rtol=1e-6, atol=1e-6)
    folder, champion = artifact_paths.version(name, 1), artifact_paths.champion(name)
    folder.chmod(0o755)
    (folder / "weights.npz").unlink()
    seal_all(folder)
    changed = {"manifest_sha256": file_digest(folder / "manifest.json")}
    champion.write_text(json.dumps(load(champion) | changed))
    found = gradmill.load(name).explain(rows, unknown="average")
    assert_allclose(found, added, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    with pytest.raises(gradmill.DataError, match=f"version 1 of {name} has no weights.npz"):
        read_weights({"name": name, "version": 1, "recipe": {"columns": []}, "dataset": {}, "metrics": {}})


def test_a_store_of_c692a25_is_explained_and_the_books_regression_takes_no_missing_value() -> None:
    model, rows = gradmill.load("linear-regression", Path(__file__).parent / "store_of_c692a25"), {"x1": 1, "x2": 1}
    (added,) = model.explain(rows)
    assert_allclose(added.sum(), model.predict(rows)[0], atol=1e-5)
    assert math.isclose(added[0], model.metrics["weights"][0])
    with pytest.raises(ValueError, match="x2 is missing"):
        model.predict({"x1": 1, "x2": None})


# ``gradmill.fit``: what ``gradmill retrain`` does, from a script, and where it keeps the rows


FRAME = {"area": [50.0, 60.0, None], "city": ["Köln", None, "Bonn"]}
# In an event loop, as in a notebook, and without a guard for __main__.
SCRIPT = """
import asyncio, json
import numpy as np, pandas as pd
import gradmill

rng = np.random.default_rng(0)
frame = pd.DataFrame({"area": rng.uniform(40, 200, 400), "city": rng.choice(["Berlin", "Köln"], 400)})
frame["price"] = 3 * frame.area + 50 * (frame.city == "Köln") + rng.normal(0, 5, 400)
frame.index = rng.permutation(400)

async def cell():
    said = []
    for order in (1, -1):
        model = gradmill.fit(frame[::order], "price", "houses", no_predict=True)
        said.append([model.outcome, model.version, [*model.columns], model.metrics["r2"]])
    frame["luck"] = rng.normal(size=400)
    for target, name in (("luck", "luck"), ("luck", "houses")):
        try:
            gradmill.fit(frame, target, name, features=["area"])
        except gradmill.Refused as error:
            said.append([gate["name"] for gate in error.gates if not gate["passed"]])
        except Exception as error:
            said.append([type(error).__name__, str(error)])
    print(json.dumps(said))

asyncio.run(cell())
"""


@pytest.mark.slow
def test_a_script_beside_modules_named_as_ours_fits_and_is_refused(
    server: str, artifacts: Path, tmp_path: Path
) -> None:
    for module in ("tasks.py", "flows.py"):
        (tmp_path / module).write_text("raise RuntimeError('this is theirs')")
    command = [sys.executable, "-c", SCRIPT]
    ours = {"GRADMILL_ARTIFACTS": str(artifacts), "PREFECT_API_URL": server, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=ours | {"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    first, second, refused, changed = json.loads(done.stdout)
    assert first[:3] == ["published", 1, ["area", "city"]], "no index is among them"
    assert first[3] > 0.99
    assert second[:2] == ["unchanged", 1], "the order of rows is no other data"
    assert refused == ["baseline"]
    assert changed[0] == "GradmillError"
    assert "price" in changed[1]
    assert "gate baseline passed" in done.stderr
    source = load(artifacts / "datasets" / "houses" / "source.json")["source"]
    assert source.startswith("datasets/houses/frame-")
    artifacts.rename(tmp_path / "moved")
    assert [*(tmp_path / "moved").rglob("frame-*")] == [tmp_path / "moved" / source], "none of those that were refused"


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_two_fits_of_one_name_at_once_wait_for_each_other_and_lose_no_rows(artifacts: Path) -> None:
    frames = [houses(rows).to_pandas() for rows in (300, 400)]
    with ThreadPoolExecutor() as pool:
        fitted = list(pool.map(lambda frame: gradmill.fit(frame, "price", "houses", no_predict=True), frames))
    assert sorted(model.version for model in fitted) == [1, 2]
    (frame,) = artifacts.rglob("frame-*")
    assert load(artifacts / "datasets" / "houses" / "source.json")["source"].endswith(frame.name)


def test_rows_of_every_kind_are_kept_by_their_content_and_options_are_named_as_on_the_command_line(
    tmp_path: Path,
) -> None:
    for frame in (pd.DataFrame(FRAME, index=[7, 8, 9]), pl.DataFrame(FRAME), pa.table(FRAME)):
        path = training._keep_frame(frame, tmp_path)
        assert pd.read_parquet(path).columns.tolist() == ["area", "city"]
        assert training._keep_frame(frame, tmp_path) == path
    options = {"weight_decay": "auto", "ignore": ["a", "b"], "no_predict": True, "lr": 0.1, "force": False, "seed": 0}
    words = "--weight-decay=auto --ignore=a --ignore=b --no-predict --lr=0.1 --seed=0"
    assert training._as_options(options | {"window": None}) == words.split()


def test_elements_of_a_list_are_whole_names_of_columns_whatever_they_contain(artifacts: Path) -> None:
    names = ["area, m2", ' "size", in cm', '5" wide', "two\nlines"]
    frame = pd.DataFrame([[1.0] * 5], columns=[*names, "price"])
    with pytest.raises(gradmill.DataError, match=r"^no column other \(--features\)"):
        gradmill.fit(frame, "price", "houses", "linear-regression", features=[*names, "other"])


def test_what_cannot_be_fitted_is_refused_and_leaves_no_frame(artifacts: Path) -> None:
    for name in ("../houses", "Houses", ""):
        with pytest.raises(ValueError, match="is not of lower-case letters"):
            gradmill.fit(pd.DataFrame(FRAME), "area", name)
    for rows in ({"a": [1, 2]}, pl.LazyFrame({"a": [1, 2]})):
        said = f"a frame is {type(rows).__name__}, not a pandas or polars DataFrame, or an Arrow table"
        with pytest.raises(TypeError, match=said):
            gradmill.fit(rows, "a", "houses")
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    for frame in (pd.DataFrame({"a": [1, "x"]}), twice, pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)})):
        with pytest.raises(gradmill.DataError, match=r"the frame cannot be written to Parquet: .*\nexpected: one type"):
            gradmill.fit(frame, "a", "houses")
    with pytest.raises(gradmill.GradmillError, match="a frame and --data\nexpected: one of the two"):
        gradmill.fit(pd.DataFrame(FRAME), "area", "houses", data="houses.csv")
    with pytest.raises(gradmill.GradmillError, match="no_publish, and no version of houses"):
        gradmill.fit(pd.DataFrame(FRAME), "area", "houses", no_publish=True)
    with pytest.raises(gradmill.GradmillError, match="--lr with a table\nexpected: tables are fitted to convergence; "):
        gradmill.fit(pd.DataFrame(FRAME), "area", "houses", "linear-regression", lr=0.1)
    assert {path.name for path in artifacts.rglob("*") if path.is_file()} == {".frames.lock"}
    with pytest.raises(gradmill.DataError, match="no column is left to predict area from"):
        gradmill.fit(pd.DataFrame(FRAME), "area", "houses")
    assert not [*artifacts.rglob("frame-*")], "only what a failed run leaves as evidence"


CLASSES_OF_TARGETS: dict[str, tuple[str, list[Any]]] = {  # the type of file, and values in their order there
    "whole numbers": (".csv", [3, 7, 11]),
    "booleans": (".csv", [False, True]),
    "decimals": (".jsonl", [-0.5, 1.5]),
    "typed whole numbers": (".parquet", [3, 7, 11]),
    "text with digits": (".parquet", ["3", "7", "11"]),
    "codes with leading zeros": (".csv", ["007", "011"]),
}


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("target", CLASSES_OF_TARGETS)
def test_classes_come_back_in_the_type_of_the_target_from_python_and_from_the_service(
    target: str, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix, classes = CLASSES_OF_TARGETS[target]
    x = np.random.default_rng(0).uniform(0, len(classes), 300).round(3)
    frame = pd.DataFrame({"x": x, "y": np.array(classes)[x.astype(int)]})
    parts = [frame[:250], frame] if suffix == ".csv" else [frame]  # text is read as was found out before
    for rows in parts:
        file = written(tmp_path / f"t{suffix}", pa.Table.from_pandas(rows, preserve_index=False))
        retrain("softmax-regression", "kinds", file)
    model = gradmill.load("kinds", version=len(parts))
    assert (model.predict(frame) == frame["y"]).mean() > 0.9
    assert sorted(model.classes, key=str) == sorted(classes, key=str)
    monkeypatch.setenv("MODEL", "kinds")
    predict = runpy.run_path(str(REPOSITORY / "docs" / "serving_rows.py"))["predict"]
    answers = json.loads(json.dumps(predict(frame.to_dict("records"))))
    assert {type(answer) for answer in answers} == {type(classes[0])}
    assert np.mean(np.array(answers) == frame["y"]) > 0.9


# The documentation


def test_the_service_of_the_documentation_answers_and_refuses(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "houses")
    service = runpy.run_path(str(REPOSITORY / "docs" / "serving_rows.py"))["app"]
    rows = [row for row in odd_rows() if row["city"] != "Atlantis" and (row["rooms"] or 1) < 5]

    async def ask(*rows: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://service") as client:
            return await client.post("/predict", json=rows)

    answered = asyncio.run(ask(*rows))
    assert answered.status_code == 200, answered.text
    assert_allclose(answered.json(), gradmill.load("houses").predict(rows), rtol=1e-6)
    for row, words in ((rows[0] | {"area": "large"}, "area is 'large'"), ({"area": 1}, "")):
        refused = asyncio.run(ask(row))
        assert (refused.status_code, words in refused.text) == (422, True)


EXAMPLES = {"own-data.md": "model.explain(row)", "consumers.md": "model.is_current()"}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_lines_of_the_documentation_run_as_they_stand_with_other_columns(page: str, published: Path) -> None:
    (program,) = [each.text for each in blocks(REPOSITORY / "docs" / page) if EXAMPLES[page] in each.text]
    program = re.sub(r'"age": (\w+)', r'"city": None, "garden": True, "rooms": \1 and 3', program)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=published.parent)
    assert done.returncode == 0, done.stderr
    assert "intercept" in done.stdout or done.stdout.endswith("True\n")


# An environment of its own


PROGRAM = """
import json, sys
import gradmill
rows = json.load(sys.stdin)
model = gradmill.load(sys.argv[1])
assert not {"tasks", "flows", "pandas", "pyarrow"} & {*sys.modules}, "of ours or of others"
json.dump([model.predict(rows).tolist(), model.explain(rows).tolist()], sys.stdout)
"""


def test_an_environment_of_numpy_and_onnxruntime_is_enough(models: Path, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for module in (gradmill, np, onnxruntime):
        (packages / module.__name__).symlink_to(Path(str(module.__file__)).parent)
    (packages / "numpy.libs").symlink_to(Path(np.__file__).parents[1] / "numpy.libs")
    (tmp_path / "program.py").write_text(PROGRAM)
    answer = subprocess.run(
        [sys.executable, "-S", "program.py", "houses"],
        input=json.dumps(ROWS), capture_output=True, text=True, cwd=tmp_path,
        env={"GRADMILL_ARTIFACTS": str(models), "PYTHONPATH": str(packages)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    predicted, explained = json.loads(answer.stdout)
    model = gradmill.load("houses", models)
    assert_allclose(predicted, model.predict(ROWS), rtol=1e-6)
    assert_allclose(explained, model.explain(ROWS), rtol=1e-9)
