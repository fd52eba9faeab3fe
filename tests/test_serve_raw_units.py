"""Folding a table's weights into raw units: the same scores as the recipe applied by hand, row by row."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from own_tables import CLASSES, RECIPE, by_hand, category, drawn_rows, drawn_weights, number, recipes, score
from tasks.data.recipe import Columns, Target
from tasks.serving import raw_units


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


def test_effects_of_each_category_average_zero_over_training_rows_and_an_unknown_code_has_none() -> None:
    folded = raw_units.fold_weights(drawn_weights(CLASSES, 3), CLASSES, np.float64)
    city, heating = np.split(folded.effects, raw_units.locate_columns(CLASSES)[1:])
    np.testing.assert_allclose(np.array([40, 3, 0, 25, 2, 12, 0]) @ city, 0, atol=1e-12)
    np.testing.assert_allclose(np.array([50, 30, 0, 0, 0]) @ heating, 0, atol=1e-12)
    np.testing.assert_array_equal(city[-1], 0)
    np.testing.assert_array_equal(city[[1, 2]], city[[4, 4]], "rare and vanished levels share one weight")
    np.testing.assert_array_equal(heating[2:], 0, "no training row is missing or has the last level")


def test_what_rounding_takes_from_a_mean_is_not_lost() -> None:
    recipe = Columns(columns=(number("pressure", 101_325.004, 50.0),), target=Target(name="y"))
    weights = {"W": np.ones((1, 1), np.float32), "b": np.zeros(1, np.float32)}
    rows = np.arange(101_200, 101_450, dtype=np.float32)[:, np.newaxis]
    found = raw_units.score_rows(raw_units.fold_weights(weights, recipe), recipe, rows)
    np.testing.assert_allclose(found, by_hand(weights, recipe, rows), rtol=0, atol=1e-6)


def test_coefficients_are_changes_of_the_score_in_raw_units() -> None:
    weights = drawn_weights(RECIPE, 1)
    folded = raw_units.fold_weights(weights, RECIPE, np.float64)
    (found,) = raw_units.name_weights(folded, RECIPE)
    assert list(found) == list(RECIPE.names)
    row = np.array([3, 100.0, 1.0, 0, 2000.0])
    more = score(weights, RECIPE, row + np.array([0, 1, 0, 0, 0])) - score(weights, RECIPE, row)
    assert found["area"] == pytest.approx(more.item())
    city, heating = found["city"], found["heating"]
    assert isinstance(city, dict)
    assert isinstance(heating, dict)
    assert list(city) == [raw_units.MISSING, *RECIPE.columns[0].levels]
    assert list(heating) == list(RECIPE.columns[3].levels)
    other = score(weights, RECIPE, np.array([math.nan, *row[1:]])) - score(weights, RECIPE, row)
    assert city[raw_units.MISSING] - city["city-3"] == pytest.approx(other.item())
    unknown = score(weights, RECIPE, np.array([-1, 0.0, 0.0, -1, 0.0]))
    assert raw_units.find_intercepts(folded) == pytest.approx(unknown)
