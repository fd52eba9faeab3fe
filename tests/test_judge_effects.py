"""The picture of a table's effects: what matplotlib was told to draw, against what the exported file predicts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from PIL import Image

from consumer import answers
from gradmill.rows import UNKNOWN
from own_tables import PAIR_CLASSES, PAIRS, Array, category, drawn_rows, drawn_weights, number
from tasks.data.recipe import Column, Columns
from tasks.judging import plots
from tasks.judging.effects import Effect, draw_effects, find_effects
from tasks.serving import onnx_graph
from tasks.serving.raw_units import fold_weights, list_arrays
from tasks.serving.task import TASKS

CLASS_NAMES = ("cheap", "fair", "dear", "dearest")
SHAPES = {"a number": (PAIRS, 1), "two classes": (PAIR_CLASSES, 2), "classes": (PAIR_CLASSES, 4)}
OF_ANY_SHAPE = pytest.mark.parametrize(("recipe", "num_outputs"), SHAPES.values(), ids=SHAPES)


class Model:
    """A table's model at random, its largest effects on some rows, and the file that is served."""

    def __init__(self, recipe: Columns, num_outputs: int, odd: float = 0.05) -> None:
        weights, self.recipe = drawn_weights(recipe, num_outputs), recipe
        self.class_names = CLASS_NAMES[:num_outputs] if num_outputs > 1 else ()
        task = TASKS["classification" if self.class_names else "regression"]
        self.file = onnx_graph.write_model(weights, recipe, task.signature(recipe, self.class_names), {})
        self.rows = drawn_rows(recipe, 3000, odd=odd)
        for at in recipe.categories:  # rows of a dataset have one code for any unknown level
            is_odd = ~np.isin(self.rows[:, at], range(len(recipe.columns[at].levels))) & ~np.isnan(self.rows[:, at])
            self.rows[is_odd, at] = UNKNOWN
        self.effects = find_effects(list_arrays(fold_weights(weights, recipe)), recipe, self.rows)

    def score(self, rows: Array) -> Array:
        """Predictions, log odds, or scores from the mean of all classes ``(n, outputs)``, as the file has them."""
        found = answers(self.file, rows.astype(np.float32))
        if not self.class_names:
            return np.asarray(found["prediction"][:, np.newaxis], np.float64)
        scores: Array = np.log(found["probabilities"].astype(np.float64))
        if len(self.class_names) == 2:
            return scores[:, 1:] - scores[:, :1]
        return scores - scores.mean(axis=1, keepdims=True)  # type: ignore[no-any-return]

    def change(self, **values: Array) -> Array:
        """The scores of one row in which only some columns differ, in every combination: ``(…, outputs)``."""
        usual = next(row for row in self.rows if np.isfinite(row).all() and (np.abs(row[[0, 3]]) < 3).all())
        grid = np.meshgrid(*values.values(), indexing="ij")
        rows = np.tile(usual, (grid[0].size, 1))
        for name, chosen in zip(values, grid, strict=True):
            rows[:, self.recipe.names.index(name)] = chosen.ravel()
        return self.score(rows).reshape(*grid[0].shape, -1)

    def draw(self) -> Figure:
        shown = range(len(self.class_names)) if len(self.class_names) > 2 else (0,)
        return draw_effects(self.effects, "What columns add", self.class_names, shown)

    def panels(self) -> Iterator[tuple[Effect, Axes, str]]:
        """Every panel with its effect, and the class that is named below its title."""
        for effect, panel in zip(self.effects, self.draw().subfigs, strict=False):
            title, _, class_name = panel.get_suptitle().partition("\n")
            assert title.startswith(f"{' × '.join(name_columns(effect))}  ±")
            yield effect, panel.axes[0], class_name

    def codes(self, column: Column, labels: Sequence[str]) -> Array:
        """The codes of labels, which may be followed by a count."""
        known = {"(missing)": np.nan, "false": 0, "true": 1}
        known |= {level: code for code, level in enumerate(column.levels)}
        return np.array([known.get(label.split(" ")[0], np.nan) for label in labels])


def name_columns(effect: Effect) -> list[str]:
    return [column.name for column in effect.columns]


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


@OF_ANY_SHAPE
def test_what_is_drawn_of_a_column_is_by_what_predictions_differ_when_only_it_changes(
    recipe: Columns, num_outputs: int
) -> None:
    """Beyond the training range a curve is flat, as the file clamps."""
    model = Model(recipe.model_copy(update={"pairs": ()}), num_outputs)
    for effect, axes, _ in model.panels():
        (column,) = effect.columns
        if column.kind == "number":
            curves = axes.lines[:-1]  # the last one is at 0
            values = np.asarray(curves[0].get_xdata())
            bends = [bend for bend in (*column.knots, *(column.limits or ())) if values[0] < bend < values[-1]]
            assert {*bends} < {*values}
            assert len(bends) == 4 or column.name == "year"
            drawn = np.column_stack([line.get_ydata() for line in curves])
        else:
            labels = texts(axes.get_yticklabels())
            values = model.codes(column, labels)
            drawn = np.array([[bar.get_width()] for bar in axes.patches])  # type: ignore[attr-defined]
            if not len(drawn):
                drawn = np.column_stack([line.get_xdata() for line in axes.lines[:-1]])
        predicted = model.change(**{column.name: values})
        assert_allclose(drawn - drawn[0], predicted - predicted[0], rtol=1e-4, atol=2e-5 * np.abs(predicted).max())
    assert len(model.effects) == len(recipe.columns)


@OF_ANY_SHAPE
def test_what_is_drawn_of_a_pair_is_what_predictions_differ_by_beyond_its_columns_alone(
    recipe: Columns, num_outputs: int
) -> None:
    """Of several classes that one is drawn on which the pair has most effect."""
    model, num_pairs = Model(recipe, num_outputs), 0
    for effect, axes, class_name in model.panels():
        if len(effect.columns) == 1:
            continue
        maps = [each for each in axes.collections if isinstance(each, QuadMesh)]
        if maps:
            drawn = np.asarray(maps[0].get_array())
            labels = axes.get_yticklabels(), axes.get_xticklabels()
            values = [model.codes(column, texts(each)) for column, each in zip(effect.columns, labels, strict=True)]
            if effect.columns[0].kind == "number":
                x, y = np.moveaxis(np.asarray(maps[0].get_coordinates()), -1, 0)
                values = [y[:, 0], x[0]]
        else:
            lines = axes.lines[:-1]
            values = [model.codes(column, [str(line.get_label()) for line in lines]) for column in effect.columns]
            drawn = np.array([line.get_ydata() for line in lines])
            if effect.columns[0].kind == "number":
                drawn = drawn.T
            values[[column.kind for column in effect.columns].index("number")] = np.asarray(lines[0].get_xdata())
        predicted = model.change(**dict(zip(name_columns(effect), values, strict=True)))
        assert_allclose(
            mix(drawn[..., np.newaxis])[..., 0],
            mix(predicted)[..., model.class_names.index(class_name) if class_name else 0],
            atol=2e-5 * np.abs(predicted).max(),
        )
        num_pairs += 1
    assert num_pairs == len(recipe.pairs)


def mix(values: Array) -> Array:
    """By what ``(a, b, outputs)`` differs from a sum of one part for each a and one for each b."""
    return np.asarray(values - values[:1] - values[:, :1] + values[:1, :1])


@OF_ANY_SHAPE
def test_the_largest_effects_come_first_by_how_much_each_varies_the_predictions_of_rows(
    recipe: Columns, num_outputs: int
) -> None:
    model = Model(recipe.model_copy(update={"pairs": ()}), num_outputs)
    sizes = []
    for effect in model.effects:
        without = model.rows.copy()
        without[:, [recipe.names.index(name) for name in name_columns(effect)]] = np.nan
        differences = model.score(model.rows) - model.score(without)
        sizes.append(float(np.sqrt(differences.var(axis=0).mean())))
    assert_allclose([effect.size for effect in model.effects], sizes, rtol=1e-3)
    assert sizes == sorted(sizes, reverse=True)


def test_of_many_columns_twelve_are_drawn_and_of_many_levels_the_twelve_with_most_rows() -> None:
    """The others are counted in a line; parts of dates are all there, in their order."""
    counts = tuple(range(1, 31))
    hours = category("hour", counts[:24]).model_copy(update={"part": "hour"})
    columns = (category("city", counts), hours, *(number(f"x{at}", 0.0, 1.0) for at in range(40)))
    model = Model(Columns(columns=columns, target=PAIRS.target), 1, odd=0.0)
    panels = {effect.columns[0].name: axes for effect, axes, _ in model.panels()}
    assert len(panels) == 12
    *cities, others = texts(panels["city"].get_yticklabels())
    assert sorted(cities) == sorted(f"city-{at - 1} ({at})" for at in range(19, 31))
    assert others == f"18 more ({sum(range(1, 19))})"
    assert texts(panels["hour"].get_xticklabels()) == [f"hour-{at}" for at in range(24)]
    effects, density = (np.asarray(each.get_data().values) for each in panels["hour"].patches)  # type: ignore[attr-defined]
    predicted = model.change(hour=np.arange(24))[:, 0]
    assert_allclose(effects - effects[0], predicted - predicted[0], rtol=1e-4)
    assert_allclose(density / density.max(), np.arange(1, 25) / 24)


def test_a_column_without_effect_and_one_without_values_are_not_drawn() -> None:
    columns = tuple(number(name, 0.0, 1.0) for name in "abc")
    recipe = Columns(columns=columns, target=PAIRS.target)
    weights = drawn_weights(recipe, 1)
    weights["W"][1] = 0
    rows = drawn_rows(recipe, 100)
    rows[:, 2] = np.nan
    arrays = list_arrays(fold_weights(weights, recipe))
    assert [name_columns(effect) for effect in find_effects(arrays, recipe, rows)] == [["a"]]
    assert find_effects(arrays, recipe, rows[:1]) == []


def test_classes_have_their_names_in_one_legend() -> None:
    model = Model(PAIR_CLASSES, 4)
    (legend,) = draw_effects(model.effects, "", CLASS_NAMES, (1, 3)).legends
    assert texts(legend.get_texts()) == ["fair", "dearest"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["price", "a name of many words " * 5, "面積 🏠 $x_1"])
def test_no_word_is_cut_off_at_an_edge_whatever_columns_and_levels_are_called(name: str, tmp_path: Path) -> None:
    columns = [column.model_copy(update={"name": f"{column.name} {name}"}) for column in PAIRS.columns]
    columns[0] = columns[0].model_copy(update={"levels": tuple(f"{level} {name}" for level in columns[0].levels)})
    pairs = tuple((f"{first} {name}", f"{second} {name}") for first, second in PAIRS.pairs)
    model = Model(PAIRS.model_copy(update={"columns": tuple(columns), "pairs": pairs}), 1)
    with Image.open(plots.save(model.draw(), tmp_path / "drawn.png").path) as image:
        grey = np.asarray(image.convert("L"))
    assert {int(edge.min()) for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1])} == {255}
