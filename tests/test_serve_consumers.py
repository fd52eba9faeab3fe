"""The exported file, unchanged, in other runtimes: the book's images, tables with values of every kind.

Of the book's images what onnxruntime for Python says is expected, on 1000 test images; of tables, with missing values
and unknown codes, the recipe applied by hand. Labels are equal, probabilities within 2e-5, predictions within 2e-5
deviations.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import gradmill
from browsing import open_tab
from command_line import gradmill as gradmill_command
from conftest import REPOSITORY
from consumer import answers
from dated_tables import draw_rows
from flows.server import demo_server
from gradmill.rows import encode_rows, find_columns
from node_packages import JAVASCRIPT, node_modules
from own_tables import CLASSES, PAIR_CLASSES, PAIRS, RECIPE, Array, by_hand, drawn_rows, drawn_weights
from served_folders import serve
from table_files import written as written_table
from tasks.data.recipe import Column, Columns, Pixels, Recipe
from tasks.serving import contract, onnx_graph
from tasks.serving.contract import Signature
from tasks.serving.task import TASKS, TaskName
from tasks.store import artifact_paths

pytestmark = pytest.mark.consumers

ROWS = 1000
TOLERANCE = 2e-5
DOCS = REPOSITORY / "docs"


class ConsumedModel(NamedTuple):
    """A file, rows for it, and what must be answered."""

    model: Path
    rows: Array
    expected: Mapping[str, Array]

    def assert_same(self, answers: Mapping[str, Any]) -> None:
        for name, answer in answers.items():
            expected = self.expected[name]
            found = np.asarray(answer, np.float64).reshape(expected.shape)
            assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1, expected.std()))

    def assert_all_same(self, answers: list[Any]) -> None:
        self.assert_same(dict(zip(self.expected, answers, strict=True)))


def write(folder: Path, recipe: Recipe, task: TaskName, num_outputs: int) -> dict[str, Array]:
    """``model.onnx`` and ``metadata.json`` as ``export`` writes them; returns the weights in them."""
    weights = drawn_weights(recipe, num_outputs)
    signature = Signature(inputs=(recipe.input,), outputs=TASKS[task].outputs(num_outputs))
    columns = recipe.describe_columns() if isinstance(recipe, Columns) else ()
    described = {"columns": json.dumps([column.model_dump() for column in columns])}
    (folder / "model.onnx").write_bytes(onnx_graph.write_model(weights, recipe, signature, described))
    contract.open_inference_metadata("table", 1, signature, columns).write(folder / "metadata.json")
    return weights


def apply_by_hand(weights: dict[str, Array], recipe: Recipe, rows: Array) -> dict[str, Array]:
    if isinstance(recipe, Columns):
        scores = by_hand(weights, recipe, rows)
    else:
        scores = rows.reshape(len(rows), -1) / 255 @ weights["W"] + weights["b"]
    if scores.shape[1] == 1:
        return {"prediction": scores[:, 0]}
    probabilities = scipy.special.softmax(scores, axis=1)
    return {"probabilities": probabilities, "label": probabilities.argmax(axis=1)}


# Pictures are higher than wide, and their channels have weights of their own.
MODELS: dict[str, tuple[Recipe, TaskName, int]] = {
    "colour images": (Pixels(shape=(9, 7, 3), scale=1 / 255), "classification", 5),
    "table of classes": (CLASSES, "classification", 3),
    "table of a regression": (RECIPE, "regression", 1),
    "curves and pairs of classes": (PAIR_CLASSES, "classification", 3),
    "curves and pairs of a regression": (PAIRS, "regression", 1),
}


@pytest.fixture(scope="module", params=["images", *MODELS])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ConsumedModel:
    if request.param == "images":
        pipeline = request.getfixturevalue("pipeline")
        report = pipeline.report("softmax-regression")
        rows = pipeline.load_test(report)["images"][:ROWS]
        return ConsumedModel(Path(report.model_path), rows, answers(report.model_path, rows))
    recipe, task, num_outputs = MODELS[request.param]
    folder = tmp_path_factory.mktemp("model")
    if isinstance(recipe, Columns):
        rows = drawn_rows(recipe, ROWS, odd=0.2)
    else:
        rows = np.random.default_rng(0).integers(0, 256, (ROWS, *recipe.shape), np.uint8)
    expected = apply_by_hand(write(folder, recipe, task, num_outputs), recipe, rows)
    return ConsumedModel(folder / "model.onnx", rows, expected)


def test_onnxruntime(exported: ConsumedModel) -> None:
    exported.assert_same(answers(exported.model, exported.rows))


def test_onnx_reference_evaluator(exported: ConsumedModel) -> None:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(exported.model))
    exported.assert_all_same(list(evaluator.run(None, {evaluator.input_names[0]: exported.rows})))


def test_tract(exported: ConsumedModel) -> None:
    tract = pytest.importorskip("tract", reason="the package tract is not installed (extra: consumers)")
    model = tract.onnx().load(str(exported.model))
    runnable = model.into_model().into_runnable()
    exported.assert_all_same([each.to_numpy() for each in runnable.run([exported.rows])])


def test_opencv(exported: ConsumedModel) -> None:
    """No labels: OpenCV 4 computes garbage, silently (docs/consumers.md, "Other runtimes")."""
    cv2 = pytest.importorskip("cv2", reason="the package opencv-python-headless is not installed (extra: consumers)")
    net = cv2.dnn.readNetFromONNX(str(exported.model))
    net.setInput(exported.rows)
    first = next(iter(exported.expected))
    exported.assert_same({first: net.forward(first)})


def test_openvino(exported: ConsumedModel) -> None:
    """Asked for float32: its default precision flips labels."""
    openvino = pytest.importorskip("openvino", reason="the package openvino is not installed (extra: consumers)")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(exported.model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    exported.assert_all_same(list(compiled([exported.rows]).values()))


@pytest.fixture(scope="module", name="node_modules")
def _node_modules() -> Path:
    return node_modules()


@pytest.fixture
def served(exported: ConsumedModel, tmp_path: Path) -> Path:
    """A folder with the model, the rows as raw bytes, and what these are."""
    shutil.copyfile(exported.model, tmp_path / "model.onnx")
    (tmp_path / "rows.bin").write_bytes(exported.rows.tobytes())
    name = "images" if exported.rows.dtype == np.uint8 else "features"
    described = {"name": name, "type": str(exported.rows.dtype), "shape": exported.rows.shape}
    (tmp_path / "rows.json").write_text(json.dumps(described))
    return tmp_path


def in_node(packages: Path, script: Path, *arguments: str | Path, **options: Any) -> dict[str, list[float]]:
    """What a script prints, run beside the installed packages or in another folder (``cwd``)."""
    beside = shutil.copyfile(script, packages.parent / script.name)
    command: list[str | Path] = ["node", beside, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True, **options)
    answer: dict[str, list[float]] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_node(exported: ConsumedModel, node_modules: Path, served: Path) -> None:
    exported.assert_same(in_node(node_modules, JAVASCRIPT / "consume.mjs", served))


@pytest.mark.slow
@pytest.mark.browser
def test_browser(exported: ConsumedModel, node_modules: Path, served: Path) -> None:
    """Real headless Chromium, onnxruntime-web in WebAssembly, everything served from loopback."""
    shutil.copyfile(JAVASCRIPT / "consume.html", served / "index.html")
    (served / "dist").symlink_to(node_modules / "onnxruntime-web" / "dist")
    with serve(served) as address, open_tab() as tab:
        with tab.expect_request(lambda request: request.method == "POST", timeout=90_000) as posted:
            tab.goto(f"{address}/")
        answer: Any = posted.value.post_data_json
    assert "error" not in answer, answer
    exported.assert_same(answer)


# Classes with a category whose levels are numbers and a truth value, as data name them, and a part of a date.
HEATING = CLASSES.columns[3].model_copy(update={"levels": ("30", "2.5", "true")})
WEEKDAY = Column(
    name="sold.weekday", kind="category", levels=tuple("1234567"), counts=(9,) * 7, source="sold", part="weekday"
)
DATED = CLASSES.model_copy(update={"columns": (*CLASSES.columns[:3], HEATING, CLASSES.columns[4], WEEKDAY)})
ROW: dict[str, Any] = {
    "year": 2001, "garden": False, "area": 98.5, "city": "city-0", "heating": 30, "sold": "2023-05-07", "another": 1
}  # fmt: skip
CODES = [0, 98.5, 0, 0, 2001, 6]
CODES_OF: dict[str, list[tuple[Any, float]]] = {
    "area": [("98", 98), (" -7", -7), (None, math.nan), ("", math.nan), (" ", math.nan)],
    "garden": [(True, 1), ("TRUE", 1), ("false", 0), (1, 1), ("0", 0), ("", math.nan), (None, math.nan)],
    "heating": [
        *((value, 0) for value in (30.0, "30", "30.0")),
        *((value, 2) for value in (True, "true", "TRUE")),
        *((value, -1) for value in (False, "30.50", "")),
        (2.5, 1), (None, math.nan),
    ],
    "sold": [
        *((value, 6) for value in ("2023-05-07 23:59", "2023-05-07T23:59:59.5+02:00")),
        *((value, math.nan) for value in (None, "")),
    ],
}  # fmt: skip
REFUSED: dict[str, list[Any]] = {
    "area": ["large", True, [1], 1e39, "-1e39"],
    "garden": [2, "yes", " True "],
    "sold": ["2023-13-06", "2023-02-31", "06.05.2023", "12:30", "2023-05-07 25:00", "Z", 1683370800, ["2023-05-07"]],
    "city": [["Ulm"], {}],
}


def test_a_service_in_javascript_turns_named_values_into_features(node_modules: Path, tmp_path: Path) -> None:
    """The lines of docs/, run in a version's folder."""
    names, rows, codes = ["city", "area", "garden", "heating", "year", "sold"], [ROW], [CODES]
    for name, cases in CODES_OF.items():
        for value, code in cases:
            rows.append(ROW | {name: value})
            codes.append([code if each == name else CODES[at] for at, each in enumerate(names)])
    features, columns = np.array(codes, np.float32), find_columns(DATED.model_dump())
    assert_array_equal(encode_rows(rows, columns, "average"), features)
    expected = apply_by_hand(write(tmp_path, DATED, "classification", 3), DATED, features)
    found = in_node(node_modules, DOCS / "serving_rows.mjs", input=json.dumps(rows), cwd=tmp_path)
    ConsumedModel(tmp_path, features, expected).assert_same(found)


@pytest.mark.slow
def test_a_service_in_javascript_refuses_what_python_refuses_and_names_column_and_value(
    node_modules: Path, tmp_path: Path
) -> None:
    write(tmp_path, DATED, "classification", 3)
    columns = find_columns(DATED.model_dump())
    without = {name: value for name, value in ROW.items() if name != "area"} | {"Area": 98.5}
    wrong = [
        (ROW | {name: value}, f"{name} is {json.dumps(value)}") for name, values in REFUSED.items() for value in values
    ]
    wrong.append((without, "column 'area' is missing"))
    for row, words in wrong:
        with pytest.raises(ValueError, match=words.partition(" is")[0]):
            encode_rows(row, columns)
    wrong.append((ROW | {"area": "1.234"}, 'area is "1.234"'))  # Python knows whether that is 1234
    for row, words in wrong:
        with pytest.raises(subprocess.CalledProcessError) as raised:
            in_node(node_modules, DOCS / "serving_rows.mjs", input=json.dumps([row]), cwd=tmp_path)
        assert words in raised.value.stderr


ODD: dict[str, list[Any]] = {
    "when": ["2021-07-04", "2023-12-31T23:59:59", "0007-03-01 06:00", "9999-02-28", None],
    "area": [98.5, 1e-30, -0.0, 3e30, None, 0],
    "city": ["Köln", "東京", "naïve\u0301", "köln", "Atlantis", "", None],
    "open": [True, False, None],
}


@pytest.mark.slow
def test_three_hundred_odd_rows_are_one_to_the_command_to_python_to_the_demo_and_to_javascript(
    artifacts: Path, tmp_path: Path, node_modules: Path
) -> None:
    """Dates, missing values, unknown levels, unicode and huge numbers: every answer is that of ``gradmill.load``."""
    rng, table = np.random.default_rng(0), draw_rows()
    table |= {"city": rng.choice(ODD["city"][:3], len(table["area"])), "open": rng.random(len(table["area"])) < 0.5}
    file = written_table(tmp_path / "rows.parquet", table)
    data = ("--data", str(file), "--target", "sales", "--no-predict")
    assert gradmill_command("retrain", "linear-regression", "--name", "sales", *data).returncode == 0
    rows = [{name: values[rng.integers(len(values))] for name, values in ODD.items()} for _ in range(300)]
    model = gradmill.load("sales")
    expected = model.predict(rows, unknown="average")
    in_json = written_table(tmp_path / "odd.jsonl", pa.Table.from_pylist(rows))
    output = tmp_path / "answers.parquet"
    options = ("--name", "sales", "--output", str(output))
    assert gradmill_command("predict", str(in_json), *options).returncode == 0
    assert_array_equal(pq.read_table(output)["prediction"].to_numpy(), expected)
    folder = artifact_paths.version("sales", 1)
    found = in_node(node_modules, DOCS / "serving_rows.mjs", input=json.dumps(rows), cwd=folder)
    assert_allclose(found["prediction"], expected, rtol=1e-6)

    page = [demo_server.answer_row(model, row)["prediction"] for row in rows]
    assert_array_equal(page, expected)
