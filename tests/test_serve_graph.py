"""The file that ``export`` writes: outputs against closed forms, its shape against the contract, what refuses it."""

import io
import json
import re
from typing import Any

import numpy as np
import onnx
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from candidate import plain
from consumer import answers
from own_images import prepare
from own_tables import CLASSES, PAIR_CLASSES, PAIRS, RECIPE, Array, by_hand, drawn_rows, drawn_weights, number, recipes
from prepared_tables import trained
from small_models import CITIES, prepare_houses
from tasks.data.prepared_splits import read_batches, read_split
from tasks.data.recipe import Column, Columns, Pixels, Recipe, Target
from tasks.errors import GateFailed
from tasks.export import export
from tasks.judging import parity
from tasks.networks import examples
from tasks.networks.training import compute_outputs
from tasks.parameters import Device, Gates, ModelName, Training
from tasks.records import ExportedModel, GateVerdict, PreparedDataset
from tasks.serving import onnx_graph, raw_units, runtime
from tasks.serving.contract import Signature
from tasks.serving.runtime import open_session
from tasks.serving.task import TASKS, TaskName
from tasks.store.run_folder import RunFolder

PIXELS, COLOUR = (Pixels(shape=shape, scale=1 / 255) for shape in ((5, 4), (3, 4, 3)))
NUMBERS = Columns(columns=tuple(Column(name=name) for name in "abc"))
PROPERTIES = {"dataset_digest": "0" * 64, "labels": '["a", "b"]'}
MODELS: list[tuple[Recipe, TaskName]] = [
    (PIXELS, "classification"),
    (COLOUR, "classification"),
    (RECIPE, "regression"),
    (CLASSES, "classification"),
    (PAIRS, "regression"),
    (PAIR_CLASSES, "classification"),
]


def sign(recipe: Recipe, task: TaskName) -> Signature:
    return TASKS[task].signature(recipe, "abc" if task == "classification" else "")


def draw(recipe: Recipe, task: TaskName, seed: int = 0) -> dict[str, Array]:
    """Weights of three classes, or of a number."""
    return drawn_weights(recipe, 3 if task == "classification" else 1, seed)


@st.composite
def models(draw: st.DrawFn) -> tuple[Columns, TaskName]:
    """A model of any table."""
    recipe, task = draw(recipes()), draw(st.sampled_from([*TASKS]))
    return recipe if task == "regression" else recipe.model_copy(update={"target": Target(name="kind")}), task


@settings(max_examples=40, deadline=None)
@given(model=models(), num_rows=st.sampled_from([0, 1, 20]), seed=st.integers(0, 2**32 - 1))
def test_any_model_of_a_table_answers_as_its_recipe_by_hand_whatever_the_values_are(
    model: tuple[Columns, TaskName], num_rows: int, seed: int
) -> None:
    """In other runtimes, and of pictures, in test_serve_consumers.py; of the book in test_run_pipeline.py."""
    recipe, task = model
    weights, rows = draw(recipe, task, seed), drawn_rows(recipe, num_rows, seed, odd=0.3)
    scores, scale = by_hand(weights, recipe, rows), recipe.target_scaling.scale
    spacing = np.spacing(np.float32(np.abs(scores).max(initial=0)))
    found = answers(onnx_graph.write_model(weights, recipe, sign(recipe, task), {}), rows)
    if task == "classification":
        assert_allclose(found["probabilities"], scipy.special.softmax(scores, axis=1), rtol=0, atol=1e-4)
        assert_array_equal(found["label"], found["probabilities"].argmax(axis=1))
    else:
        assert_allclose(found["prediction"], scores[:, 0], rtol=0, atol=1e-4 * scale + 4 * spacing)


def test_of_equal_probabilities_the_first_is_the_label() -> None:
    weights = {"W": np.zeros((3, 3), np.float32), "b": np.array([0, 1, 1], np.float32)}
    content = onnx_graph.write_model(weights, NUMBERS, sign(NUMBERS, "classification"), {})
    assert answers(content, np.zeros((2, 3), np.float32))["label"].tolist() == [1, 1]


@pytest.mark.parametrize(("recipe", "task"), MODELS)
def test_the_file_keeps_the_contract_and_tells_of_nothing_else(recipe: Recipe, task: TaskName) -> None:
    content = onnx_graph.write_model(draw(recipe, task), recipe, sign(recipe, task), PROPERTIES)
    model, signature = onnx.load_from_string(content), sign(recipe, task)
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
    written = str(model)  # every field that is set, at every depth
    assert not re.search("doc_string|external_data|data_location", written)
    assert written.count("metadata_props") == len(PROPERTIES)


# Folding a table's weights into raw units: the same scores as the recipe applied by hand, row by row


def test_what_rounding_takes_from_a_mean_is_not_lost() -> None:
    recipe = Columns(columns=(number("pressure", 101_325.004, 50.0),), target=Target(name="y"))
    weights = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    rows = np.arange(101_200, 101_450, dtype=np.float32)[:, np.newaxis]
    found = raw_units.score_rows(weights, recipe, rows, np.float32)
    assert_allclose(found, (rows.astype(float) - 101_325.004) / 50, rtol=0, atol=1e-6)


# A prepared table through ``export``: what the file, its description and its sample say, and what refuses it


class OwnTable:
    """A prepared table with weights drawn for it, which ``export`` may take for trained ones."""

    def __init__(self, *class_names: str) -> None:
        model = ModelName.SOFTMAX_REGRESSION if class_names else ModelName.LINEAR_REGRESSION
        self.training = Training(model=model, defaults="data")
        self.run, self.prepared = RunFolder.open("run", {}), prepare_houses(class_names)
        assert isinstance(self.prepared.recipe, Columns)
        self.recipe = self.prepared.recipe
        self.weights = drawn_weights(self.recipe, len(class_names) or 1)

    def export(self) -> ExportedModel:
        model = trained(self.run, self.prepared, self.weights)
        made: ExportedModel = plain(export)(self.run, self.prepared, model, self.training, Gates())
        return made

    def verdict(self, recipe: Columns | None = None) -> GateVerdict:
        """That of the recipe in float64."""
        prepared = self.prepared.model_copy(update={"recipe": recipe or self.recipe})
        content = onnx_graph.write_model(self.weights, prepared.recipe, prepared.signature, {})
        (found,) = parity.compare_in_float64(open_session(content, Device.CPU), self.weights, prepared, Gates())
        return found


@pytest.mark.parametrize("class_names", [(), ("flat", "house", "villa")])
def test_a_table_is_exported_with_its_classes_and_a_telling_sample(class_names: tuple[str, ...]) -> None:
    exported = OwnTable(*class_names).export()
    assert {gate.name for gate in exported.gates} >= {"parity", "parity_float64", "servability"}
    session = open_session(exported.onnx.path.read_bytes(), Device.CPU)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties.get("labels", "[]")) == [*class_names]
    with np.load(exported.sample.path) as archive:
        rows = archive["features"]
    assert np.isnan(rows).any(), "a missing value"
    assert rows[-1, 1] == len(CITIES), "an unknown code"
    assert set(exported.profile) == ({"label", "confidence"} if class_names else {"prediction"})


def test_verdicts_do_not_depend_on_how_many_rows_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    table = OwnTable("flat", "house", "villa")
    at_once = table.export()
    monkeypatch.setattr(read_batches, "__defaults__", (7,))
    in_pieces = table.export()
    assert in_pieces.profile == at_once.profile
    one, other = ({each.name: each.value for each in exported.gates[:3]} for exported in (at_once, in_pieces))
    assert one == pytest.approx(other, abs=1e-7)


def test_a_wrong_effect_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folding that goes wrong deceives the scores in float32, which use it too, but not those in float64."""
    right = raw_units.fold_weights

    def wrong(weights: Any, recipe: Columns, dtype: Any = np.float32) -> raw_units.FoldedWeights:
        folded = right(weights, recipe, dtype)
        folded.effects[3] *= 1.01 if dtype is np.float32 else 1
        return folded

    for module in (onnx_graph, raw_units):
        monkeypatch.setattr(module, "fold_weights", wrong)
    with pytest.raises(GateFailed, match="refused by parity_float64 "):
        OwnTable().export()


@pytest.mark.parametrize("offset", [1e8, 1e12])
def test_a_target_that_float32_cannot_tell_apart_is_refused_and_its_offset_is_named(offset: float) -> None:
    table = OwnTable()
    found = table.verdict(table.recipe.model_copy(update={"target": Target(name="y", mean=offset, scale=80_000.0)}))
    assert found.passed == (offset == 1e8)
    assert ("subtract an offset from the target" in found.detail) == (offset == 1e12)
    assert "loses most" not in found.detail


@pytest.mark.parametrize("weight", [1.0, 1e5])
def test_a_column_that_others_determine_is_refused_with_advice_that_helps(weight: float) -> None:
    table = OwnTable()
    table.weights["W"][table.recipe.names.index("area")] = weight
    found, said = table.verdict(), "column 'area' loses most in float32, nearly determined by other columns: leave one"
    assert found.passed == (weight == 1)
    assert (said in found.detail) == (weight == 1e5)
    assert "subtract an offset" not in found.detail


# The file of a model of own pictures: what it says of them, and what it answers however large they are


def describe(images: Array) -> tuple[PreparedDataset, dict[str, Array], bytes]:
    """Prepared pictures of three classes, weights drawn for them, and the file of both."""
    prepared = prepare(images, np.arange(len(images)) % 3, "abc")
    weights, described = draw(prepared.recipe, "classification"), onnx_graph.describe_model(prepared, Training())
    return prepared, weights, onnx_graph.write_model(weights, prepared.recipe, prepared.signature, described)


@pytest.mark.parametrize(("shape", "called"), [((5, 4), "Gray8"), ((5, 4, 3), "Rgb8")])
def test_the_file_says_channels_and_classes_and_the_sample_is_of_test_pictures(
    shape: tuple[int, ...], called: str
) -> None:
    prepared, _, content = describe(np.random.default_rng(0).integers(0, 256, (50, *shape), np.uint8))
    session, test = open_session(content, Device.CPU), read_split(prepared.test, prepared)
    described = session.get_modelmeta().custom_metadata_map
    assert (described["Image.BitmapPixelFormat"], described["labels"]) == (called, '["a", "b", "c"]')
    sample = runtime.write_sample(session, prepared.recipe, test.inputs)
    assert (np.load(io.BytesIO(sample))["images"] == test.inputs[:8]).all()
    assert runtime.find_contradiction(session, prepared.recipe, sample) is None


@pytest.mark.parametrize("values", [1, 100, 2**24])
def test_large_pictures_are_answered_a_few_at_a_time_and_alike(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (runtime, raw_units, examples):
        monkeypatch.setattr(module, "VALUES", values)
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8)
    prepared, weights, content = describe(images)
    expected = images.reshape(40, -1) / 255 @ weights["W"].astype(float) + weights["b"]
    answers = runtime.run_model(open_session(content, Device.CPU), images)["probabilities"]
    assert_allclose(answers, scipy.special.softmax(expected, axis=1), atol=1e-5)
    assert_allclose(raw_units.score_rows(weights, prepared.recipe, images), expected, atol=1e-9)
    sizes: list[int] = []

    def net(X: torch.Tensor) -> torch.Tensor:  # noqa: N803  (the book's letter)
        sizes.append(len(X))
        return X.flatten(1).clone()

    split = examples.Split(torch.from_numpy(images), torch.zeros(40, dtype=torch.int64), 1 / 255)
    assert_allclose(compute_outputs(net, split), images.reshape(40, -1) / 255, atol=1e-6)
    assert max(sizes) == min(40, max(1, values // 90))
