"""``import gradmill``: rows of any kind to answers, and versions that are not as they were published."""

import datetime
import decimal
import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from conftest import REPOSITORY
from gradmill.rows import Column, name_level
from small_models import CITIES
from store_state import damage
from tasks.data.io import pictures
from tasks.data.levels import format_values
from tasks.store import artifact_paths, pointer
from tasks.store.atomic import file_digest

CLASSES = ("cheap", "fair", "dear")
MANIFEST_OF_PICTURES = {
    "name": "softmax-regression", "version": 3, "recipe": {"kind": "pixels"}, "metrics": {}, "files": {},
    "dataset": {"class_names": served_images.LABELS},
}  # fmt: skip
FILES = {"model": "model.onnx", "manifest": "manifest.json"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with models of a table: a regression, and classes of which there are three, and two."""
    folder = tmp_path_factory.mktemp("models") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(folder))
        small_models.publish("houses")
        small_models.publish("segments", CLASSES)
        small_models.publish("gardens", ("no", "yes"))
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
    for none in ([], pd.DataFrame(ROWS)[:0], pl.DataFrame(ROWS)[:0]):
        assert model.predict(none).shape == (0,)
    assert gradmill.load("segments").predict_proba([]).shape == (0, 3)
    many = pd.DataFrame(ROWS * 1000)
    np.testing.assert_allclose(model.predict(many), np.tile(model.predict(ROWS), 1000), rtol=1e-6)


@pytest.mark.parametrize("column", small_models.COLUMNS)
@pytest.mark.parametrize(
    "missing",
    [None, math.nan, np.float32("nan"), np.datetime64("NaT"), pd.NaT, pd.NA, decimal.Decimal("NaN")],
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
    with pytest.raises(gradmill.DataError, match="cannot be read: No such file or directory\nexpected: "):
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
