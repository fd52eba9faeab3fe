"""Folding a table's weights into raw units: the same scores as the recipe applied by hand, row by row."""

import math

import numpy as np
import pytest

from own_tables import CLASSES, RECIPE, by_hand, category, drawn_rows, drawn_weights, number, score
from tasks.data.recipe import Columns, Target
from tasks.serving import folding


@pytest.mark.parametrize(("recipe", "num_outputs"), [(RECIPE, 1), (CLASSES, 3)])
def test_folded_weights_score_raw_rows_as_the_recipe_by_hand(recipe: Columns, num_outputs: int) -> None:
    weights, rows = drawn_weights(recipe, num_outputs), drawn_rows(recipe, 500, odd=0.3)
    expected = by_hand(weights, recipe, rows)
    exact = folding.scores(folding.fold(weights, recipe, np.float64), recipe, rows)
    np.testing.assert_allclose(exact, expected, rtol=1e-12, atol=1e-9)
    found = folding.scores(folding.fold(weights, recipe), recipe, rows)
    assert found.dtype == np.float32
    deviation = recipe.target.scale if recipe.target else 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * deviation)


def test_effects_of_each_category_average_zero_over_training_rows_and_an_unknown_code_has_none() -> None:
    folded = folding.fold(drawn_weights(CLASSES, 3), CLASSES, np.float64)
    city, heating = np.split(folded.effects, folding.offsets(CLASSES)[1:])
    np.testing.assert_allclose(np.array([40, 3, 0, 25, 2, 12, 0]) @ city, 0, atol=1e-12)
    np.testing.assert_allclose(np.array([50, 30, 0, 0, 0]) @ heating, 0, atol=1e-12)
    np.testing.assert_array_equal(city[-1], 0)
    np.testing.assert_array_equal(city[[1, 2]], city[[4, 4]], "rare and vanished levels share one weight")
    np.testing.assert_array_equal(heating[2:], 0, "no training row is missing or has the last level")


def test_what_rounding_takes_from_a_mean_is_not_lost() -> None:
    recipe = Columns(columns=(number("pressure", 101_325.004, 50.0),), target=Target(name="y"))
    weights = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    rows = np.arange(101_200, 101_450, dtype=np.float32)[:, np.newaxis]
    found = folding.scores(folding.fold(weights, recipe), recipe, rows)
    np.testing.assert_allclose(found, by_hand(weights, recipe, rows), rtol=0, atol=1e-6)


def test_coefficients_are_changes_of_the_score_in_raw_units() -> None:
    weights = drawn_weights(RECIPE, 1)
    folded = folding.fold(weights, RECIPE, np.float64)
    (found,) = folding.coefficients(folded, RECIPE)
    assert list(found) == list(RECIPE.names)
    row = np.array([3, 100.0, 1.0, 0, 2000.0])
    more = score(weights, RECIPE, row + np.array([0, 1, 0, 0, 0])) - score(weights, RECIPE, row)
    assert found["area"] == pytest.approx(more.item())
    city, heating = found["city"], found["heating"]
    assert isinstance(city, dict)
    assert isinstance(heating, dict)
    assert list(city) == [folding.MISSING, *RECIPE.columns[0].levels]
    assert list(heating) == list(RECIPE.columns[3].levels)
    other = score(weights, RECIPE, np.array([math.nan, *row[1:]])) - score(weights, RECIPE, row)
    assert city[folding.MISSING] - city["city-3"] == pytest.approx(other.item())
    unknown = score(weights, RECIPE, np.array([-1, 0.0, 0.0, -1, 0.0]))
    assert folding.intercepts(folded) == pytest.approx(unknown)


def test_a_table_of_categories_alone_has_no_product() -> None:
    recipe = Columns(columns=(category("city", (20, 5)),), target=Target(name="y"))
    weights = drawn_weights(recipe, 1)
    rows = np.array([[0], [1], [np.nan], [7]], np.float32)
    found = folding.scores(folding.fold(weights, recipe), recipe, rows)
    np.testing.assert_allclose(found, by_hand(weights, recipe, rows), atol=1e-6)
