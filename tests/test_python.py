"""``import gradmill``: rows of any kind to answers, what each column adds, and versions that were damaged."""

import asyncio
import datetime
import decimal
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import gradmill
import served_images
import small_models
from command_line import typed
from conftest import REPOSITORY
from fenced_blocks import blocks
from gradmill.model import read_weights
from gradmill.rows import Column, encode_rows, name_level
from input_files import read
from small_models import CITIES
from store_state import damage
from table_files import written
from tasks.data.io import pictures
from tasks.data.io.batches import ReadSpec
from tasks.data.levels import format_values
from tasks.store import artifact_paths, pointer, reading
from tasks.store.artifact_paths import CHECKSUMS, MANIFEST
from tasks.store.atomic import file_digest

CLASSES = ("cheap", "fair", "dear")
MANIFEST_OF_PICTURES = {
    "name": "softmax-regression", "version": 3, "recipe": {"kind": "pixels"}, "metrics": {}, "files": {},
    "dataset": {"class_names": served_images.LABELS},
}  # fmt: skip
FILES = {"model": "model.onnx", "manifest": "manifest.json"}


MODELS: Mapping[str, tuple[str, ...]] = {
    "houses": (), "segments": CLASSES, "gardens": ("no", "yes"),
}  # fmt: skip


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
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run([output], {"features": np.array(features, np.float32)})[0]


def test_a_model_says_what_it_is(published: Path) -> None:
    model = gradmill.load("segments")
    assert (model.name, model.version, model.classes, model.is_current()) == ("segments", 1, CLASSES, True)
    assert [*model.columns] == [*small_models.COLUMNS]
    assert model.columns["city"].levels == CITIES
    assert model.metrics["test_accuracy"] > 0.3
    page = model._repr_html_()
    assert all(text in page for text in ("segments version 1", "test_accuracy", "garden", "dear"))


def test_a_version_of_before_says_that_it_is_not_the_champion(two_versions: None, artifacts: Path) -> None:
    old, new = gradmill.load("linear-regression", artifacts, version=1), gradmill.load("linear-regression")
    assert (old.version, old.is_current(), old.classes) == (1, False, ())
    assert (new.version, new.is_current()) == (2, True)
    pointer.rollback("linear-regression")
    assert old.is_current()


FRAMES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "mappings": lambda rows: rows,
    "a generator": iter,
    "pandas": pd.DataFrame,
    "pandas with its own missing values": lambda rows: pd.DataFrame(rows).convert_dtypes(),
    "pandas of objects and NaN": lambda rows: (
        pd.DataFrame(rows).astype(object).where(pd.DataFrame(rows).notna(), np.nan)
    ),
    "pandas of categories": lambda rows: pd.DataFrame(rows).astype({"city": "category", "rooms": "category"}),
    "polars": pl.DataFrame,
    "an Arrow table": pa.Table.from_pylist,
    "an Arrow table of dictionaries": lambda rows: pa.table(
        {name: pa.array([row[name] for row in rows]).dictionary_encode() for name in rows[0]}
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_rows_of_every_kind_give_the_answers_of_the_file(kind: str, published: Path) -> None:
    model, classes = gradmill.load("houses"), gradmill.load("segments")
    np.testing.assert_array_equal(model.predict(FRAMES[kind](ROWS)), run(model, CODES, "prediction"))
    probabilities = run(classes, CODES, "probabilities")
    np.testing.assert_array_equal(classes.predict_proba(FRAMES[kind](ROWS)), probabilities)
    assert classes.predict(FRAMES[kind](ROWS)).tolist() == [CLASSES[each] for each in probabilities.argmax(axis=1)]


def test_one_mapping_is_one_row_and_no_rows_are_none(published: Path) -> None:
    model = gradmill.load("houses")
    assert model.predict(ROWS[0]).tolist() == model.predict(ROWS).tolist()[:1]
    empty: tuple[Any, ...] = ([], pd.DataFrame(ROWS)[:0], pl.DataFrame(ROWS)[:0])
    for none in empty:
        assert model.predict(none).shape == (0,)
    assert gradmill.load("segments").predict_proba([]).shape == (0, 3)
    many = pd.DataFrame(ROWS * 1000)
    np.testing.assert_allclose(model.predict(many), np.tile(model.predict(ROWS), 1000), rtol=1e-6)


@pytest.mark.parametrize("column", small_models.COLUMNS)
@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.float32("nan"), np.datetime64("NaT", "s"), pd.NaT, pd.NA, decimal.Decimal("NaN")],
    ids=repr,
)
def test_missing_in_every_spelling_is_missing_in_every_column(published: Path, column: str, missing: Any) -> None:
    model, at = gradmill.load("houses"), [*small_models.COLUMNS].index(column)
    codes = [[math.nan if place == at else code for place, code in enumerate(CODES[0])]]
    expected = run(model, codes, "prediction")
    rows = [ROWS[0] | {column: missing}]
    np.testing.assert_array_equal(model.predict(rows), expected)
    np.testing.assert_array_equal(model.predict(pd.DataFrame(rows)), expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"area": "large"}, "area is 'large', not a number"),
        ({"area": True}, "area is True, not a number"),
        ({"area": datetime.date(2026, 1, 2)}, "area is 2026-01-02, not a number"),
        ({"area": [1]}, r"area is \[1\], not a number"),
        ({"area": 1e300}, r"area is 1e\+300, not a finite number"),
        ({"area": 10**400}, "area is 1000.*, not a finite number"),
        ({"area": "inf"}, "area is 'inf', not a finite number"),
        ({"city": "Atlantis"}, "city is 'Atlantis', a level that the model has not seen"),
        ({"rooms": 7.0}, "rooms is 7.0, a level that the model has not seen"),
        ({"garden": "maybe"}, "garden is 'maybe', neither true nor false"),
        ({"garden": 2}, "garden is 2, neither true nor false"),
    ],
)
def test_a_value_that_its_column_does_not_take_is_named(published: Path, wrong: dict[str, Any], said: str) -> None:
    model = gradmill.load("houses")
    for ask in (model.predict, model.explain):
        with pytest.raises(ValueError, match=rf"{said}.* \(row 1, counted from 0\)"):
            ask([ROWS[0], ROWS[0] | wrong])


def test_a_column_that_is_missing_or_there_twice_is_named(published: Path) -> None:
    model = gradmill.load("houses")
    row = {name: value for name, value in ROWS[0].items() if name not in ("city", "rooms")}
    for rows in (row, [row], pd.DataFrame([row]), pl.DataFrame([row]), pa.Table.from_pylist([row])):
        with pytest.raises(ValueError, match="column 'city', 'rooms' is missing"):
            model.predict(rows)
    with pytest.raises(ValueError, match="column 'area' is there twice"):
        model.predict(pd.DataFrame([[1, 2]], columns=["area", "area"]).assign(city="Köln", garden=True, rooms=1))
    for none in (7, "text", [[1, 2]], np.zeros((2, 4))):
        with pytest.raises(TypeError, match="not a mapping, mappings, a pandas or polars DataFrame, or an Arrow table"):
            model.predict(none)


def test_an_unknown_level_may_have_the_average_effect(published: Path) -> None:
    model = gradmill.load("segments")
    unknown = ROWS[0] | {"city": "Atlantis"}
    expected = run(model, [[98.5, -1, 1, 2]], "probabilities")
    np.testing.assert_array_equal(model.predict_proba(unknown, unknown="average"), expected)
    with pytest.raises(ValueError, match="column 'area' is missing"):
        model.predict({name: unknown[name] for name in ("city", "garden", "rooms")}, unknown="average")
    with pytest.raises(ValueError, match="unknown is 'ignore', not"):
        model.predict(unknown, unknown="ignore")  # type: ignore[arg-type]


def test_numbers_and_truth_values_may_be_text(published: Path) -> None:
    model = gradmill.load("houses")
    text = {"area": " 98.5 ", "city": "Köln", "garden": "TRUE", "rooms": "3"}
    assert model.predict(text) == model.predict(ROWS[0])
    assert model.predict(text | {"area": "", "garden": "1"}) == model.predict(ROWS[0] | {"area": None})


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1.0, 2.5, -0.0, 1e20, 3.0]),
        pa.array([1.1, 0.5, 7.0], pa.float32()),
        pa.array([1, -7, 2**60]),
        pa.array([True, False]),
        pa.array(["7.0", "+7.", "TRUE", "False", " 7", "Köln", "1e3", ""]),
        pa.array([datetime.datetime(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5)]),
        pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 600)]),
        pa.array([datetime.date(2026, 1, 2)]),
    ],
    ids=lambda values: f"{values.type}-{len(values)}",
)
def test_levels_are_named_as_training_names_them(values: pa.Array) -> None:
    expected = format_values(values)
    assert [name_level(value) for value in values.to_pylist()] == expected
    assert [name_level(value) for value in values.to_numpy(zero_copy_only=False)] == expected
    zoned = pa.array([datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)])
    assert [name_level(value) for value in zoned.to_pylist()] == format_values(zoned)


def test_equal_values_of_several_types_are_told_apart() -> None:
    column = Column("mixed", "category", ("1", "true", "1.5"))
    np.testing.assert_array_equal(
        column.encode([1, True, 1.0, "1", "True", np.float32(1.5), [1]]), [0, 1, 0, 0, 1, 2, -1]
    )


# Pictures


def test_pictures_are_arrays_or_files_read_as_predict_reads_them(artifacts: Path, tmp_path: Path) -> None:
    folder = served_images.write(artifacts / "models")
    (folder / "3" / "manifest.json").write_text(json.dumps(MANIFEST_OF_PICTURES))
    (folder / "champion.json").write_text(json.dumps(
        {"version": 3} | {f"{key}_sha256": file_digest(folder / "3" / name) for key, name in FILES.items()}
    ))  # fmt: skip
    model = gradmill.load("softmax-regression")
    sample = np.load(folder / "3" / "sample.npz")
    np.testing.assert_array_equal(
        model.predict(sample["images"]), [served_images.LABELS[each] for each in sample["label"]]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gradmill.pictures", None)  # as where there is no Pillow
        np.testing.assert_allclose(model.predict_proba(sample["images"][2]), sample["probabilities"][2:3], rtol=1e-5)
    colour = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    paths = [tmp_path / "a.png", tmp_path / "b.jpg"]
    Image.fromarray(colour).save(paths[0])
    Image.fromarray(sample["images"][0]).save(paths[1])
    expected = np.stack([pictures.decode(path, (28, 28))[0] for path in paths])
    for rows in (paths, [*map(str, paths)], [path.read_bytes() for path in paths]):
        np.testing.assert_array_equal(model.predict_proba(rows), model.predict_proba(expected))
    assert model.predict(str(paths[0])).shape == (1,)
    for wrong in (colour, sample["images"].astype(float), sample["images"][:, :9]):
        with pytest.raises(ValueError, match=r"of shape .*, not uint8 of shape \('n', 28, 28\)"):
            model.predict(wrong)
    paths[0].write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.png is no picture"):
        model.predict(paths)
    with pytest.raises(ValueError, match="pictures"):
        model.explain(sample["images"])


# The store


@pytest.mark.usefixtures("two_versions")
def test_what_is_not_there_or_damaged_is_an_error_that_says_what_to_do() -> None:
    name = "linear-regression"
    for other in ("palaces", f"../models/{name}", ""):
        with pytest.raises(gradmill.DataError, match="there is no model"):
            gradmill.load(other)
    with pytest.raises(gradmill.DataError, match="has no version 9\nexpected: one of 1, 2"):
        gradmill.load(name, version=9)
    for number, file in ((2, "model.onnx"), (2, "manifest.json"), (1, "manifest.json"), (1, "model.onnx")):
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


def test_a_mirror_is_loaded_from(published: Path, tmp_path: Path) -> None:
    (published / "models").rename(tmp_path / "mirror")
    assert gradmill.load("houses", tmp_path / "mirror").predict(ROWS).shape == (3,)


def test_the_book_s_regression_is_loaded_and_takes_no_missing_value(two_versions: None) -> None:
    model = gradmill.load("linear-regression")
    np.testing.assert_allclose(model.predict({"x1": 1, "x2": 2}), [2 - 6.8 + 4.2], atol=0.05)
    with pytest.raises(ValueError, match="x2 is missing"):
        model.predict({"x1": 1, "x2": None})


# What each column adds


def odd_rows() -> list[dict[str, Any]]:
    """Rows of which some values are missing, and some levels unknown."""
    rng = np.random.default_rng(3)
    rows = [
        {
            "area": float(rng.uniform(40, 200)),
            "city": str(rng.choice([*CITIES, "Atlantis"])),
            "garden": bool(rng.random() < 0.5),
            "rooms": int(rng.integers(1, 7)),
        }
        for _ in range(300)
    ]
    return [{name: None if rng.random() < 0.1 else value for name, value in row.items()} for row in rows]


def by_hand(row: Mapping[str, Any], metrics: Mapping[str, Any], recipe: Any) -> list[float]:
    """What each column adds by the figures that are told at publication, one output's; the last is the intercept."""
    added, intercept = [], metrics["bias"]
    for column in recipe.columns:
        value, weight = row[column.name], metrics["weights"][column.name]
        if column.kind == "category":
            level = "(missing)" if value is None else str(value)
            added.append(weight.get(level, 0.0))
        else:
            intercept += column.mean * weight
            added.append(0.0 if value is None else (float(np.float32(value)) - column.mean) * weight)
    return [*added, intercept]


@pytest.mark.parametrize("name", MODELS)
def test_what_columns_add_is_what_arithmetic_says_and_adds_up_to_the_answer(name: str, models: Path) -> None:
    model, rows, classes = gradmill.load(name, models), odd_rows(), MODELS[name]
    added = model.explain(rows, unknown="average")
    assert added.dtype == np.float64
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(models))
        manifest = reading.manifest(name, 1)
    metrics = manifest.metrics.model_dump()
    outputs = [{key: metrics[key][each] for key in ("weights", "bias")} for each in classes] or [metrics]
    expected = np.array([[by_hand(row, output, manifest.recipe) for output in outputs] for row in rows])
    if len(classes) == 3:
        expected -= expected.mean(axis=1, keepdims=True)
    else:
        expected = expected[:, 1] - expected[:, 0] if classes else expected[:, 0]
    assert added.shape == expected.shape
    np.testing.assert_allclose(added, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    total = added.sum(axis=-1)
    if not classes:
        np.testing.assert_allclose(total, model.predict(rows, unknown="average"), rtol=1e-6)
        return
    probabilities = model.predict_proba(rows, unknown="average").astype(np.float64)
    if len(classes) == 2:
        np.testing.assert_allclose(1 / (1 + np.exp(-total)), probabilities[:, 1], atol=1e-6)
        return
    np.testing.assert_allclose(total.sum(axis=1), 0, atol=1e-9)
    softmax = np.exp(total) / np.exp(total).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, probabilities, atol=1e-6)


def test_the_intercept_is_the_answer_to_a_row_of_training_means(models: Path) -> None:
    model = gradmill.load("houses", models)
    nothing = dict.fromkeys(model.columns) | {"city": "Atlantis", "rooms": 9}
    (added,) = model.explain(nothing, unknown="average")
    np.testing.assert_array_equal(added[:-1], 0.0)
    np.testing.assert_allclose(added[-1], model.predict(nothing, unknown="average"), rtol=1e-6)


def test_the_book_s_weights_are_told_against_the_means_of_its_training_rows(two_versions: None) -> None:
    model, rows = gradmill.load("linear-regression"), [{"x1": 1.5, "x2": -2.0}, {"x1": 0.0, "x2": 0.25}]
    added = model.explain(rows)
    np.testing.assert_allclose(added.sum(axis=1), model.predict(rows), atol=1e-5)
    weights = model.metrics["weights"]
    np.testing.assert_allclose(added[0, :2] - added[1, :2], [1.5 * weights[0], -2.25 * weights[1]], atol=1e-5)
    mean = weights[0] * 1.5 - added[0, 0]
    assert 0 < abs(mean) < 0.3, "the mean of 1000 standard normal numbers"


def without_weights(folder: Path, version: int = 1, **metrics: Any) -> None:
    """A version as it was published before there was ``weights.npz``, and with other metrics."""
    path = folder / str(version)
    path.chmod(0o755)
    for name in (MANIFEST, CHECKSUMS, "weights.npz"):
        (path / name).chmod(0o644)
    (path / "weights.npz").unlink()
    manifest = json.loads((path / MANIFEST).read_bytes())
    del manifest["files"]["weights.npz"]
    manifest["metrics"] |= metrics
    (path / MANIFEST).write_text(json.dumps(manifest))
    champion = json.loads((folder / "champion.json").read_bytes())
    champion["manifest_sha256"] = file_digest(path / MANIFEST)
    (folder / "champion.json").write_text(json.dumps(champion))


@pytest.mark.parametrize("name", MODELS)
def test_an_older_version_is_explained_by_its_manifest_or_says_that_it_cannot(
    name: str, models: Path, artifacts: Path
) -> None:
    shutil.copytree(models, artifacts)
    expected = gradmill.load(name).explain(odd_rows(), unknown="average")
    without_weights(artifacts / "models" / name)
    found = gradmill.load(name).explain(odd_rows(), unknown="average")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    with pytest.raises(gradmill.DataError, match=f"version 1 of {name} has no weights.npz"):
        read_weights({"name": name, "version": 1, "recipe": {"columns": []}, "dataset": {}, "metrics": {}})


def test_a_store_of_c692a25_is_explained() -> None:
    model = gradmill.load("linear-regression", Path(__file__).parent / "store_of_c692a25")
    np.testing.assert_allclose(model.explain({"x1": 1, "x2": 1}).sum(), model.predict({"x1": 1, "x2": 1}), atol=1e-5)
    assert math.isclose(model.explain({"x1": 1, "x2": 1})[0, 0], model.metrics["weights"][0])


def test_weights_that_have_changed_are_not_used(two_versions: None) -> None:
    damage(artifact_paths.version("linear-regression", 2) / "weights.npz", 300)
    with pytest.raises(gradmill.DataError, match=r"2/weights\.npz has changed"):
        gradmill.load("linear-regression")


# One encoding


ODD: dict[str, list[Any]] = {
    "area": [98.5, 1e-30, -0.0, 3e38, 1e39, math.inf, None, 0],
    "city": [*CITIES, "Atlantis", None, "köln", "", "NA", "True"],
    "garden": [True, False, None],
    "rooms": ["1", "2", "3.0", "+4", "4", "5", None],
}


def test_rows_are_encoded_as_batch_prediction_encodes_them(models: Path, tmp_path: Path) -> None:
    """What one refuses the other refuses, in the same words."""
    rng = np.random.default_rng(5)
    rows = [{name: values[rng.integers(len(values))] for name, values in ODD.items()} for _ in range(300)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(models))
        recipe = reading.manifest("houses", 1).recipe
    columns = gradmill.load("houses", models).columns
    for suffix in (".parquet", ".feather"):
        path = written(tmp_path / f"rows{suffix}", pa.Table.from_pylist(rows))
        chunks = read(path, ReadSpec(recipe, unknown="reject"), tmp_path / "spool")
        taken = {int(row): X for chunk in chunks for row, X in zip(chunk.row_ids, np.asarray(chunk.X), strict=True)}
        refused = {reject.row: reject.reason for chunk in chunks for reject in chunk.rejects}
        assert len(taken) > 50
        assert len(refused) > 50
        for at, row in enumerate(rows):
            if at in taken:
                np.testing.assert_array_equal(encode_rows(row, columns)[0], taken[at], str(row))
            else:
                with pytest.raises(ValueError, match=re.escape(refused[at])):
                    encode_rows(row, columns)


@pytest.mark.slow
def test_answers_are_those_of_the_command_row_for_row(published: Path, prefect_api: str, tmp_path: Path) -> None:
    rows = odd_rows()
    path = written(tmp_path / "rows.parquet", pa.Table.from_pylist(rows))
    for name in ("houses", "segments"):
        output = tmp_path / f"{name}.parquet"
        done = typed("predict", path, "--name", name, "--unknown", "average", "--output", output)
        assert done.returncode == 0, done.stderr
        found, model = pd.read_parquet(output), gradmill.load(name)
        answers = model.predict(rows, unknown="average")
        if model.classes:
            assert found["label_name"].tolist() == answers.tolist()
            found = found[[f"probability_{each}" for each in model.classes]]
            np.testing.assert_array_equal(found.to_numpy(), model.predict_proba(rows, unknown="average"))
        else:
            np.testing.assert_array_equal(found["prediction"], answers)


# The documentation


def test_the_service_of_the_documentation_answers_and_refuses(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "houses")
    spec = importlib.util.spec_from_file_location("serving_rows", REPOSITORY / "docs" / "serving_rows.py")
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    rows = [row for row in odd_rows() if row["city"] != "Atlantis" and (row["rooms"] or 1) < 5]

    async def ask(rows: Any) -> httpx.Response:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post("/predict", json=rows)

    answered = asyncio.run(ask(rows))
    assert answered.status_code == 200, answered.text
    np.testing.assert_allclose(answered.json(), gradmill.load("houses").predict(rows), rtol=1e-6)
    for column, value in {"area": "large", "city": "Atlantis"}.items():
        refused = asyncio.run(ask([rows[0] | {column: value}]))
        assert refused.status_code == 422
        assert f"{column} is '{value}'" in refused.json()["detail"]
    assert asyncio.run(ask([{"area": 1}])).status_code == 422


EXAMPLES = {"own-data.md": "model.explain(row)", "consumers.md": "model.is_current()"}


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_lines_of_the_documentation_run_as_they_stand_with_other_columns(page: str, published: Path) -> None:
    (block,) = [each for each in blocks(REPOSITORY / "docs" / page) if EXAMPLES[page] in each.text]
    program = re.sub(r'"age": (\w+)', r'"city": None, "garden": True, "rooms": \1 and 3', block.text)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=published.parent)
    assert done.returncode == 0, done.stderr
    assert "intercept" in done.stdout or done.stdout.endswith("True\n")


# An environment of its own, and folders with modules named as ours


PROGRAM = """
import json, sys
import gradmill
rows = json.load(sys.stdin)
model = gradmill.load(sys.argv[1])
assert not {"tasks", "flows", "pandas", "pyarrow"} & {*sys.modules}, "of ours or of others"
json.dump([model.predict(rows).tolist(), model.explain(rows).tolist()], sys.stdout)
"""


@pytest.mark.slow
def test_an_environment_of_numpy_and_onnxruntime_is_enough(models: Path, tmp_path: Path) -> None:
    import venv

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime"], check=True, timeout=500)
    packages = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    )
    shutil.copytree(REPOSITORY / "gradmill", Path(packages.stdout.strip()) / "gradmill")
    theirs = tmp_path / "theirs"
    (theirs / "flows").mkdir(parents=True)
    (theirs / "tasks.py").write_text("raise RuntimeError('this is theirs')")
    (theirs / "flows" / "__init__.py").write_text("raise RuntimeError('this is theirs')")
    (theirs / "program.py").write_text(PROGRAM)
    answer = subprocess.run(
        [python, "program.py", "houses"],
        input=json.dumps(ROWS), capture_output=True, text=True, cwd=theirs,
        env={"GRADMILL_ARTIFACTS": str(models)},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    predicted, explained = json.loads(answer.stdout)
    model = gradmill.load("houses", models)
    np.testing.assert_allclose(predicted, model.predict(ROWS), rtol=1e-6)
    np.testing.assert_allclose(explained, model.explain(ROWS), rtol=1e-9)
