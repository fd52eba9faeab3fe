"""The file that ``export`` writes: outputs against closed forms, its shape against the contract, what refuses it."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import scipy.special
import torch
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from candidate import plain
from own_images import prepare
from own_tables import CLASSES, RECIPE, Array, by_hand, category, drawn_rows, drawn_weights, number, recipes
from prepared_tables import trained
from tasks.data.prepared_splits import read_batches, read_split
from tasks.data.recipe import Column, Columns, Pixels, Recipe, Target
from tasks.download import download
from tasks.errors import DataError, GateFailed
from tasks.export import export
from tasks.fitting import served
from tasks.judging import parity
from tasks.networks import examples
from tasks.networks.training import outputs
from tasks.parameters import Data, Device, Gates, ModelName, Training
from tasks.preprocess import preprocess
from tasks.records import ExportedModel, PreparedDataset
from tasks.serving import contract, onnx_graph, raw_units, runtime
from tasks.serving.contract import ModelMetadata, Signature
from tasks.serving.runtime import open_session
from tasks.serving.task import TASKS, TaskName
from tasks.store.run_folder import RunFolder
from tasks.validate import validate

PIXELS, COLOUR = (Pixels(shape=shape, scale=1 / 255) for shape in ((5, 4), (3, 4, 3)))
NUMBERS = Columns(columns=tuple(Column(name=name) for name in "abc"))
PROPERTIES = {"dataset_digest": "0" * 64, "labels": '["a", "b"]'}
MODELS: list[tuple[Recipe, TaskName]] = [
    (PIXELS, "classification"),
    (COLOUR, "classification"),
    (NUMBERS, "regression"),
    (NUMBERS, "classification"),
    (RECIPE, "regression"),
    (CLASSES, "classification"),
]


def sign(recipe: Recipe, task: TaskName) -> Signature:
    return TASKS[task].signature(recipe, "abc" if task == "classification" else "")


def draw(recipe: Recipe, task: TaskName, seed: int = 0) -> dict[str, Array]:
    """Weights of three classes, or of a number."""
    num_outputs = 3 if task == "classification" else 1
    if isinstance(recipe, Columns):
        return drawn_weights(recipe, num_outputs, seed)
    rng = np.random.default_rng(seed)
    sizes = {"W": (math.prod(recipe.shape), num_outputs), "b": (num_outputs,)}
    return {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}


def write(recipe: Recipe, task: TaskName) -> bytes:
    return onnx_graph.write_model(draw(recipe, task), recipe, sign(recipe, task), PROPERTIES)


def answers(content: bytes, rows: Array) -> list[list[Array]]:
    """What onnxruntime says, and ONNX's own reference, whose Flatten knows no empty batch."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    runtimes = [session, ReferenceEvaluator(onnx.load_from_string(content))] if len(rows) else [session]
    return [runtime.run(None, {session.get_inputs()[0].name: rows}) for runtime in runtimes]


@st.composite
def models(draw: st.DrawFn) -> tuple[Recipe, TaskName]:
    """A model of images or the book's, or one of any table."""
    if draw(st.booleans()):
        return draw(st.sampled_from(MODELS[:4]))
    recipe, task = draw(recipes()), draw(st.sampled_from([*TASKS]))
    return recipe if task == "regression" else recipe.model_copy(update={"target": Target(name="kind")}), task


@settings(max_examples=40, deadline=None)
@example((RECIPE, "regression"), 1000, 0)
@example((CLASSES, "classification"), 1000, 0)
@given(model=models(), num_rows=st.sampled_from([0, 1, 20]), seed=st.integers(0, 2**32 - 1))
def test_any_model_answers_as_its_recipe_by_hand_whatever_the_values_are(
    model: tuple[Recipe, TaskName], num_rows: int, seed: int
) -> None:
    recipe, task = model
    weights = draw(recipe, task, seed)
    if isinstance(recipe, Pixels):
        rows = np.random.default_rng(seed).integers(0, 256, (num_rows, *recipe.shape), np.uint8)
        pixels = rows.reshape(num_rows, math.prod(recipe.shape)) * recipe.scale
        scores = pixels @ weights["W"].astype(np.float64) + weights["b"]
    else:
        rows = drawn_rows(recipe, num_rows, seed, odd=0.0 if recipe.is_plain else 0.3)
        scores = by_hand(weights, recipe, rows)
    content = onnx_graph.write_model(weights, recipe, sign(recipe, task), {})
    for found in answers(content, rows):
        if task == "classification":
            np.testing.assert_allclose(found[0], scipy.special.softmax(scores, axis=1), rtol=0, atol=1e-4)
            np.testing.assert_array_equal(found[1], found[0].argmax(axis=1))
            assert (found[0].dtype, found[1].dtype, found[1].shape) == (np.float32, np.int64, (num_rows,))
        else:
            scale = recipe.target.scale if isinstance(recipe, Columns) and recipe.target else 1.0
            spacing = np.spacing(np.float32(np.abs(scores).max(initial=0)))
            np.testing.assert_allclose(found[0], scores[:, 0], rtol=0, atol=1e-4 * scale + 4 * spacing)
            assert (found[0].dtype, found[0].shape) == (np.float32, (num_rows,))


def test_of_equal_probabilities_the_first_is_the_label() -> None:
    weights = {"W": np.zeros((3, 3), np.float32), "b": np.array([0, 1, 1], np.float32)}
    content = onnx_graph.write_model(weights, NUMBERS, sign(NUMBERS, "classification"), {})
    for _, label in answers(content, np.zeros((2, 3), np.float32)):
        np.testing.assert_array_equal(label, [1, 1])


def parts(message: Message) -> list[Message]:
    """A message of the file and all that it holds, at every depth."""
    held = [value for field, value in message.ListFields() if field.message_type is not None]
    inner = [each for value in held for each in (value if not isinstance(value, Message) else [value])]
    return [message, *(part for each in inner for part in parts(each))]


@pytest.mark.parametrize(("recipe", "task"), MODELS)
def test_the_file_keeps_the_contract_and_tells_of_nothing_else(recipe: Recipe, task: TaskName) -> None:
    model, signature = onnx.load_from_string(write(recipe, task)), sign(recipe, task)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version <= 20) for each in model.opset_import] == [("", True)]
    assert model.ir_version <= 10, "of onnxruntime 1.21"
    for kind, tensors in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        for node, tensor in zip(kind, tensors, strict=True):
            first, *others = node.type.tensor_type.shape.dim
            assert (node.name, first.dim_param) == (tensor.name, "batch")
            assert tuple(each.dim_value for each in others) == tensor.shape
            assert onnx.helper.tensor_dtype_to_np_dtype(node.type.tensor_type.elem_type) == np.dtype(tensor.dtype)
    assert {each.key: each.value for each in model.metadata_props} == PROPERTIES
    assert (model.producer_version, model.domain, model.model_version) == ("", "", 0)
    everything = parts(model)
    assert len(everything) > 20
    for part in everything:
        assert not getattr(part, "doc_string", "")
        assert part is model or not list(getattr(part, "metadata_props", []))
        assert not list(getattr(part, "external_data", []))
    assert "Div" not in {node.op_type for node in model.graph.node}, "scales are folded"
    is_table = isinstance(recipe, Columns) and not recipe.is_plain
    assert ("Sub" in {node.op_type for node in model.graph.node}) is is_table, "means are not"


def test_weights_that_do_not_fit_the_signature_are_no_file() -> None:
    task: TaskName = "classification"
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx_graph.write_model(draw(NUMBERS, task), PIXELS, sign(PIXELS, task), {})


# Folding a table's weights into raw units: the same scores as the recipe applied by hand, row by row


@settings(max_examples=25, deadline=None)
@example(RECIPE, 1)
@example(CLASSES, 3)
@example(Columns(columns=(category("city", (20, 5)),), target=Target(name="y")), 1)  # without a product
@given(recipe=recipes(), num_outputs=st.integers(1, 3))
def test_folded_weights_score_any_raw_rows_as_the_recipe_by_hand(recipe: Columns, num_outputs: int) -> None:
    weights, rows = drawn_weights(recipe, num_outputs), drawn_rows(recipe, 100, odd=0.3)
    expected, scale = by_hand(weights, recipe, rows), recipe.target.scale if recipe.target else 1.0
    exact = raw_units.score_rows(raw_units.fold_weights(weights, recipe, np.float64), recipe, rows)
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-9 * scale)
    found = raw_units.score_rows(raw_units.fold_weights(weights, recipe), recipe, rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-4 * scale)


def test_what_rounding_takes_from_a_mean_is_not_lost() -> None:
    recipe = Columns(columns=(number("pressure", 101_325.004, 50.0),), target=Target(name="y"))
    weights = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    rows = np.arange(101_200, 101_450, dtype=np.float32)[:, np.newaxis]
    found = raw_units.score_rows(raw_units.fold_weights(weights, recipe), recipe, rows)
    np.testing.assert_allclose(found, by_hand(weights, recipe, rows), rtol=0, atol=1e-6)


# An own table from its CSV to ``export``: what the file, its description and its sample say, and what refuses it


NUM_ROWS = 400


Draw = Callable[[np.random.Generator], Array]


def houses(folder: Path, **extra: Draw) -> Path:
    """A CSV of numbers, a boolean and two categories, with missing values; a price and a class to predict."""
    rng = np.random.default_rng(0)
    columns: dict[str, Array] = {
        "area": np.round(rng.normal(120, 30, NUM_ROWS), 2).astype(str),
        "city": rng.choice(["Ulm", "Köln", "Bonn", "Aalen"], NUM_ROWS, p=[0.5, 0.3, 0.19, 0.01]),
        "garden": rng.choice(["true", "false"], NUM_ROWS),
        "heating": rng.choice(["gas", "oil"], NUM_ROWS),
        **{name: draw(rng).astype(str) for name, draw in extra.items()},
        "price": np.round(rng.normal(250_000, 80_000, NUM_ROWS)).astype(str),
        "kind": rng.choice(["flat", "house", "villa"], NUM_ROWS),
    }
    for name in ("area", "city"):
        columns[name][rng.random(NUM_ROWS) < 0.1] = ""
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path = folder / "houses.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Table:
    """A prepared table with weights drawn for it, which ``export`` may take for trained ones."""

    def __init__(self, path: Path, target: str) -> None:
        other = {"price": "kind", "kind": "price"}[target]
        task = "regression" if target == "price" else "classification"
        model = ModelName.LINEAR_REGRESSION if target == "price" else ModelName.SOFTMAX_REGRESSION
        self.training = Training(model=model, defaults="data")
        data = Data(source=str(path), target=target, ignore=(other,))
        self.run = RunFolder.open("run", {})
        raw = plain(download)(self.run, "houses", data)
        validated = plain(validate)(self.run, raw, data, task)
        self.prepared: PreparedDataset = plain(preprocess)(self.run, validated, data, 0)
        assert isinstance(self.prepared.recipe, Columns)
        self.recipe = self.prepared.recipe
        self.weights = drawn_weights(self.recipe, len(self.prepared.class_names) or 1)

    def export(self) -> ExportedModel:
        model = trained(self.run, self.prepared, self.weights)
        made: ExportedModel = plain(export)(self.run, self.prepared, model, self.training, Gates())
        return made


@pytest.mark.parametrize("target", ["price", "kind"])
def test_a_table_is_exported_with_its_columns_and_a_telling_sample(tmp_path: Path, target: str) -> None:
    table = Table(houses(tmp_path), target)
    exported = table.export()
    assert {gate.name for gate in exported.gates} >= {"parity", "parity_float64", "servability"}
    session = open_session(exported.onnx.path.read_bytes(), Device.CPU)
    properties = session.get_modelmeta().custom_metadata_map
    columns = json.loads(properties["columns"])
    assert columns == json.loads(exported.metadata.path.read_text())["parameters"]["columns"]
    assert columns[:2] == [
        {"name": "area", "kind": "number", "levels": []},
        {"name": "city", "kind": "category", "levels": ["Aalen", "Bonn", "Köln", "Ulm"]},
    ]
    assert columns[2] == {"name": "garden", "kind": "boolean", "levels": []}
    assert json.loads(properties.get("labels", "[]")) == ([] if target == "price" else ["flat", "house", "villa"])
    content = exported.sample.path.read_bytes()
    assert runtime.find_contradiction(session, table.recipe, content) is None
    rows = np.load(exported.sample.path)["features"]
    assert np.isnan(rows).any(), "a missing value"
    assert rows[-1, 1] == 4, "an unknown code"
    assert set(exported.profile) == ({"prediction"} if target == "price" else {"label", "confidence"})


def test_metadata_names_columns_of_tables_alone_and_is_read_strictly(tmp_path: Path) -> None:
    signature = Signature(inputs=(RECIPE.input,), outputs=())
    without = contract.open_inference_metadata("houses", 1, signature).write(tmp_path / "metadata.json")
    assert "parameters" not in json.loads(without.path.read_text())
    assert ModelMetadata.read(without.path).parameters is None, "as the book's and those of old"
    metadata = contract.open_inference_metadata("houses", 1, signature, RECIPE.describe_columns())
    assert ModelMetadata.read(metadata.write(tmp_path / "metadata.json").path) == metadata
    wrong = metadata.model_dump_json().replace('"boolean"', '"bool"')
    with pytest.raises(DataError, match="kind"):
        ModelMetadata.parse(wrong.encode(), "metadata.json")


def test_verdicts_do_not_depend_on_how_many_rows_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(houses(tmp_path), "kind")
    at_once = table.export()
    monkeypatch.setattr(read_batches, "__defaults__", (7,))
    in_pieces = table.export()
    assert in_pieces.profile == at_once.profile
    for one, other in zip(at_once.gates, in_pieces.gates, strict=True):
        if one.name.startswith("parity"):
            assert one.value == pytest.approx(other.value, abs=1e-7)
            assert one.maximum == pytest.approx(other.maximum)


def test_a_wrong_effect_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folding that goes wrong deceives torch, which uses it too, but not the recipe in float64."""
    table, right = Table(houses(tmp_path), "price"), raw_units.fold_weights

    def wrong(weights: Any, recipe: Columns, dtype: Any = np.float32) -> raw_units.Folded:
        folded = right(weights, recipe, dtype)
        if np.dtype(dtype) == np.float32:
            folded.effects[3] *= 1.01  # of Ulm
        return folded

    monkeypatch.setattr("tasks.serving.onnx_graph.fold_weights", wrong)
    monkeypatch.setattr(raw_units, "fold_weights", wrong)
    with pytest.raises(GateFailed, match="refused by parity_float64 "):
        table.export()


def test_a_target_that_float32_cannot_tell_apart_is_refused_and_its_offset_is_named(tmp_path: Path) -> None:
    table = Table(houses(tmp_path), "price")
    for offset, passes in ((1e8, True), (1e12, False)):
        target = Target(name="price", mean=offset, scale=80_000.0)
        recipe = table.recipe.model_copy(update={"target": target})
        prepared = table.prepared.model_copy(update={"recipe": recipe})
        session = open_session(onnx_graph.write_model(table.weights, recipe, prepared.signature, {}), Device.CPU)
        (verdict,) = parity.compare_in_float64(session, table.weights, prepared, Gates())
        assert verdict.passed is passes
    assert "subtract an offset from the target" in verdict.detail
    assert "loses most" not in verdict.detail


def test_a_column_that_others_determine_is_refused_with_advice_that_helps(tmp_path: Path) -> None:
    table, rng = Table(houses(tmp_path, twin=lambda rng: rng.normal(0, 1, NUM_ROWS)), "price"), np.random.default_rng(0)
    for weight, passes in ((1.0, True), (3e4, False)):
        table.weights["W"][:] = rng.normal(size=table.weights["W"].shape)
        table.weights["W"][[table.recipe.columns[at].name == "twin" for at in table.recipe.numbers]] = weight
        session = open_session(
            onnx_graph.write_model(table.weights, table.recipe, table.prepared.signature, {}), Device.CPU
        )
        (verdict,) = parity.compare_in_float64(session, table.weights, table.prepared, Gates())
        assert verdict.passed is passes
    said = "column 'twin' loses most in float32, nearly determined by other columns: --ignore one of them, or --weight"
    assert said in verdict.detail
    assert "subtract an offset" not in verdict.detail


# The file of a model of own pictures: what it says of them, and what it answers however large they are


ASKED = Training(defaults="data")
RNG = np.random.default_rng(0)


def draw_weights(shape: tuple[int, ...], outputs: int) -> dict[str, Array]:
    size = int(np.prod(shape))
    return {"W": RNG.normal(size=(size, outputs)).astype(np.float32), "b": RNG.normal(size=outputs).astype(np.float32)}


@pytest.mark.parametrize(("shape", "called"), [((5, 4), "Gray8"), ((5, 4, 3), "Rgb8")])
def test_the_file_says_size_channels_and_classes_and_the_sample_is_of_test_pictures(
    shape: tuple[int, ...], called: str
) -> None:
    images = RNG.integers(0, 256, (50, *shape), np.uint8)
    prepared = prepare(images, np.arange(50) % 2, ("cat", "dog"))
    content = onnx_graph.write_model(
        draw_weights(shape, 2), prepared.recipe, prepared.signature, onnx_graph.describe_model(prepared, ASKED)
    )
    model = onnx.load_from_string(content)
    described = {each.key: each.value for each in model.metadata_props}
    assert described["Image.BitmapPixelFormat"] == called
    assert json.loads(described["labels"]) == ["cat", "dog"]
    (source,) = model.graph.input
    dims = [each.dim_param or each.dim_value for each in source.type.tensor_type.shape.dim]
    assert (source.name, dims) == ("images", ["batch", *shape])
    session, test = runtime.open_session(content, Device.CPU), read_split(prepared.test, prepared)
    stored = np.load(io.BytesIO(runtime.write_sample(session, prepared.recipe, test.inputs)))
    assert (stored["images"] == test.inputs[:8]).all()
    assert (
        runtime.find_contradiction(
            session, prepared.recipe, runtime.write_sample(session, prepared.recipe, test.inputs)
        )
        is None
    )


@pytest.mark.parametrize("values", [1, 100, 2**24])
def test_large_pictures_are_answered_a_few_at_a_time_and_alike(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runtime, served, examples):
        monkeypatch.setattr(module, "VALUES", values)
    recipe = Pixels(shape=(6, 5, 3), scale=1 / 255)
    weights, images = draw_weights(recipe.shape, 3), RNG.integers(0, 256, (40, 6, 5, 3), np.uint8)
    prepared = prepare(images, np.arange(40) % 3, "abc")
    session = runtime.open_session(onnx_graph.write_model(weights, recipe, prepared.signature, {}), Device.CPU)
    expected = images.reshape(40, -1) / 255 @ weights["W"].astype(float) + weights["b"]
    answers = runtime.run_model(session, images)["probabilities"]
    np.testing.assert_allclose(answers, scipy.special.softmax(expected, axis=1), atol=1e-5)
    np.testing.assert_allclose(served.scores(weights, recipe, images), expected, atol=1e-4)
    split = examples.Split(torch.from_numpy(images), torch.zeros(40, dtype=torch.int64), 1 / 255)
    sizes: list[int] = []

    def net(X: torch.Tensor) -> torch.Tensor:  # noqa: N803  (the book's letter)
        sizes.append(len(X))
        return X.flatten(1) @ torch.from_numpy(weights["W"]) + torch.from_numpy(weights["b"])

    np.testing.assert_allclose(outputs(net, split).numpy(), expected, atol=1e-4)
    assert max(sizes) == min(40, max(1, values // 90))
