"""The solver of tables: weights against scikit-learn's, shapes and pairs against data that were made with them."""

import functools
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import OneHotEncoder, SplineTransformer, StandardScaler

from prepared_tables import column
from tasks.data.prepared_splits import Examples
from tasks.data.recipe import Columns, Target
from tasks.fitting import design, tables
from tasks.fitting.cross_validation import Folds, PenaltySearch, RidgeFits, assign_folds
from tasks.fitting.design import Design, add_knots, place_knots, screen_pairs, spread_penalties
from tasks.fitting.objective import Objective
from tasks.fitting.tables import FitOptions, FittedTable, fit_table, fit_weights, refit_table
from tasks.parameters import Loss
from tasks.serving import raw_units

Array = NDArray[Any]
LEVELS = "abcdef"


class Table:
    """Five standard normal numbers, a category of six levels, and what is to be predicted from them."""

    def __init__(self, num_rows: int = 1200, seed: int = 0, noise: float = 0.5) -> None:
        rng = np.random.default_rng(seed)
        self.numbers = rng.normal(size=(num_rows, 5)).astype(np.float32).astype(np.float64)
        self.codes = rng.integers(0, len(LEVELS), num_rows)
        self.features = np.column_stack([self.numbers, self.codes]).astype(np.float32)
        self.keys = rng.integers(0, 2**63, num_rows).astype(np.uint64)
        self.noise = noise * rng.normal(size=num_rows)

    def make_recipe(self, y: Array | None = None) -> Columns:
        """The recipe with this table's statistics, and those of a target."""
        columns = []
        for at, values in enumerate(self.features.T):
            of_column = column(f"x{at}", values, tuple(LEVELS) if at == 5 else ())
            limits = {} if at == 5 else {"limits": (float(values.min()), float(values.max()))}
            columns.append(of_column.model_copy(update=limits))
        target = Target(name="y") if y is None else Target(name="y", mean=float(y.mean()), scale=float(y.std()))
        return Columns(columns=tuple(columns), target=target)

    def one_hot(self) -> Array:
        """Standardised numbers and an indicator of each level, by scikit-learn."""
        scaled = StandardScaler().fit_transform(self.numbers)
        return np.hstack([scaled, OneHotEncoder(sparse_output=False).fit_transform(self.codes[:, np.newaxis])])

    def regress(self, y: Array, **options: Any) -> FittedTable:
        """The model of a number."""
        recipe = self.make_recipe(y)
        objective = Objective(Loss.SQUARED, scale=recipe.target_scaling.scale)
        return fit_table(Examples(self.features, y, self.keys), recipe, objective, 1, FitOptions(**options))


@pytest.mark.parametrize("alpha", [1e-3, 10.0])
def test_least_squares_are_those_of_scikit_learn(alpha: float) -> None:
    table = Table()
    y = table.numbers @ [1, -2, 0.5, 0, 3] + table.codes + table.noise
    fit, weights = fit_weights(
        table.features, y, table.make_recipe(y), 1, Objective(Loss.SQUARED, scale=y.std()), alpha / len(y)
    )
    reference = Ridge(alpha=alpha, tol=1e-12).fit(table.one_hot(), (y - y.mean()) / y.std())
    learned = np.concatenate([weights["W"], weights["effects"]])[:, 0]
    assert_allclose(learned, reference.coef_, rtol=0, atol=1e-6)
    assert_allclose(weights["b"], reference.intercept_, rtol=0, atol=1e-6)
    assert fit.gradient < 1e-9


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_logistic_regressions_are_those_of_scikit_learn(num_classes: int, C: float) -> None:  # noqa: N803
    table = Table()
    score = table.numbers @ [1, -2, 0.5, 0, 3] + table.codes + table.noise * 4
    labels = np.digitize(score, np.quantile(score, np.linspace(0, 1, num_classes + 1)[1:-1]))
    objective, decay = Objective(Loss.CROSS_ENTROPY), 1 / (C * len(labels))
    if num_classes == 2:
        decay *= 2  # two weight vectors that differ in sign have half the squared norm of their difference
    recipe = table.make_recipe()
    fit, weights = fit_weights(table.features, labels, recipe, num_classes, objective, decay, tolerance=1e-11)
    reference = LogisticRegression(C=C, tol=1e-12, solver="newton-cholesky").fit(table.one_hot(), labels)
    learned = np.concatenate([weights["W"], weights["effects"]]).T
    expected = reference.coef_ if num_classes > 2 else np.concatenate([-reference.coef_, reference.coef_]) / 2
    assert_allclose(learned, expected, rtol=0, atol=1e-6)
    assert fit.gradient < 1e-10


def test_a_huber_fit_has_no_slope_left_and_is_not_moved_by_outliers() -> None:
    table = Table()
    y = table.numbers @ [1, -2, 0.5, 0, 3] + table.noise
    y[:20] += 1000
    scale = float(np.quantile(np.abs(y), 0.9))
    recipe = table.make_recipe().model_copy(update={"target": Target(name="y", mean=0.0, scale=scale)})
    fit, weights = fit_weights(table.features, y, recipe, 1, Objective(Loss.HUBER, scale=scale), 1e-6)
    assert fit.gradient < 1e-6
    assert_allclose(weights["W"][:, 0] * scale, [1, -2, 0.5, 0, 3], rtol=0, atol=0.2)


def test_nearly_separable_classes_converge_too() -> None:
    table = Table(num_rows=200)
    labels = (table.numbers[:, 0] + 0.1 * table.numbers[:, 1] > 0).astype(int)
    fit, _ = fit_weights(table.features, labels, table.make_recipe(), 2, Objective(Loss.CROSS_ENTROPY), 1e-7)
    assert fit.gradient < 1e-6


def test_curves_are_the_linear_splines_of_scikit_learn() -> None:
    table = Table()
    y = np.abs(table.numbers[:, 0]) + table.noise
    recipe = add_knots(table.make_recipe(y), table.features)
    objective = Objective(Loss.SQUARED, scale=float(y.std()))
    only = recipe.model_copy(update={"columns": recipe.columns[:1]})
    _, weights = fit_weights(table.features[:, :1], y, only, 1, objective, 1e-10)
    knots = np.array([table.numbers[:, 0].min(), *only.columns[0].knots, table.numbers[:, 0].max()])
    basis = SplineTransformer(degree=1, knots=knots[:, np.newaxis]).fit_transform(table.numbers[:, :1])
    expected = Ridge(alpha=1e-9).fit(basis, y).predict(basis)
    inputs = Design(only).encode(table.features[:, :1])
    scores = inputs.numbers @ np.concatenate([weights["W"], weights["kinks"]]) + weights["b"]
    assert_allclose(scores[:, 0] * y.std() + y.mean(), expected, rtol=0, atol=1e-4)
    assert_allclose(weights["kink_means"], inputs.numbers[:, 1:].mean(axis=0))


def test_knots_lie_between_equal_shares_of_the_rows_and_common_values_take_one() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros(5000), rng.uniform(1, 2, 5000)])
    knots = np.array(place_knots(values, 16))
    assert len(knots) >= 14
    assert (knots > 1).sum() >= 14
    shares = np.diff(np.searchsorted(np.sort(values[5000:]), knots[knots > 1]))[1:] / 5000
    assert_allclose(shares, shares.mean(), atol=0.01)
    assert place_knots(np.arange(5.0).repeat(100), 16) == ()
    assert len(place_knots(rng.normal(size=45), 16)) == 4
    assert place_knots(np.full(50, np.nan), 16) == ()


@pytest.mark.parametrize(("num_numbers", "num_knots"), [(1, 64), (8, 40), (40, 16), (125, 8)])
def test_few_numbers_have_more_knots_than_many(num_numbers: int, num_knots: int) -> None:
    features = np.random.default_rng(0).normal(size=(1000, num_numbers)).astype(np.float32)
    recipe = Columns(columns=tuple(column(f"x{at}", values) for at, values in enumerate(features.T)))
    assert {len(with_knots.knots) for with_knots in add_knots(recipe, features).columns} == {num_knots}


def test_what_the_difference_of_nearly_equal_columns_explains_is_learned() -> None:
    table = Table()
    table.features[:, 1] = table.features[:, 0] + 0.01 * table.features[:, 1]
    y = 100 * (table.features[:, 1] - table.features[:, 0]).astype(np.float64) + 0.01 * table.noise
    fitted = table.regress(y, shape="linear")
    assert fitted.comparison is not None
    assert fitted.comparison.losses["linear"] < 0.001 * fitted.comparison.null_loss


def test_the_chosen_penalty_has_the_loss_of_scikit_learn_s_folds() -> None:
    table = Table(num_rows=300, noise=3)
    y = table.numbers @ [1, -2, 0.5, 0, 3] + table.noise
    y = (y - y.mean()) / y.std()
    folds = assign_folds(table.keys, is_by_time=False)
    design = Design(table.make_recipe(y))
    fits = RidgeFits(design.encode(table.features), y, Objective(Loss.SQUARED), 1, folds)
    for penalty in (1e-4, 1e-2, 1.0):
        predicted = np.empty(len(y))
        for fitted, left_out in folds.split():
            alpha = penalty * len(y)
            model = Ridge(alpha=alpha, tol=1e-12).fit(table.one_hot()[fitted], y[fitted])
            predicted[left_out] = model.predict(table.one_hot()[left_out])
        expected = ((predicted - y) ** 2).mean() / 2
        assert_allclose(fits.compare(np.full(len(design.groups), penalty)), expected, rtol=1e-7)
    search = PenaltySearch(fits, design.groups)
    best = search.follow_path({})
    alphas = np.array([10.0 ** (power / 2) for power in range(-12, 5)]) * len(y)
    folds_of_rows = PredefinedSplit(folds.numbers)
    reference = RidgeCV(alphas=alphas, cv=folds_of_rows, scoring="neg_mean_squared_error").fit(table.one_hot(), y)
    assert_allclose(best["slopes"], reference.alpha_ / len(y), rtol=1e-6)


def test_folds_of_time_are_predicted_from_earlier_rows_only_and_equal_keys_stay_together() -> None:
    keys = np.random.default_rng(0).integers(0, 60, 500).astype(np.uint64)
    for fitted, predicted in assign_folds(keys, is_by_time=True).split():
        assert keys[fitted].max() < keys[predicted].min()
    folds = assign_folds(keys, is_by_time=False)
    assert all(len(np.unique(folds.numbers[keys == key])) == 1 for key in np.unique(keys))
    assert np.bincount(folds.numbers).min() > 30
    order = np.random.default_rng(1).permutation(len(keys))
    assert_array_equal(assign_folds(keys[order], is_by_time=False).numbers, folds.numbers[order])


def draw_target(table: Table, shape: str) -> Array:
    """A number that follows from the columns by a model of this shape."""
    y = table.numbers @ [1, -2, 0.5, 0, 3] + table.codes + table.noise
    if shape != "linear":
        y += 3 * np.abs(table.numbers[:, 1])
    if shape == "pairs":
        y += table.numbers[:, 2] * table.numbers[:, 3] + table.numbers[:, 4] * (table.codes % 2)
    return y


@pytest.mark.parametrize("shape", ["linear", "curves", "pairs"])
@pytest.mark.parametrize("kind", ["number", "classes"])
def test_the_shape_that_the_data_have_is_chosen(shape: str, kind: str) -> None:
    table = Table(num_rows=3000)
    y = draw_target(table, shape)
    if kind == "number":
        fitted = table.regress(y)
    else:
        labels = (y + 4 * table.noise > np.median(y)).astype(int)
        rows = Examples(table.features, labels, table.keys)
        fitted = fit_table(rows, table.make_recipe(), Objective(Loss.CROSS_ENTROPY), 2, FitOptions())
    assert fitted.recipe.shape == shape
    assert fitted.comparison is not None
    losses = fitted.comparison.losses
    assert losses[fitted.recipe.shape] < fitted.comparison.null_loss
    if shape == "pairs":
        assert set(fitted.recipe.pairs) >= {("x2", "x3"), ("x4", "x5")}
        assert losses["pairs"] < losses["curves"] < losses["linear"]


def test_pairs_are_not_found_in_noise() -> None:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=(400, 60)), rng.integers(0, 6, 400)]).astype(np.float32)
    levels = {60: tuple(LEVELS)}
    columns = tuple(column(f"x{at}", values, levels.get(at, ())) for at, values in enumerate(features.T))
    assert screen_pairs(Columns(columns=columns), features, rng.normal(size=(400, 1))) == ()


def test_what_the_search_found_is_measured_on_rows_that_it_did_not_see() -> None:
    """The loss of cross-validation is that of new rows, within chance: nothing of the folds leaks into it."""
    table, later = Table(num_rows=2000, seed=0), Table(num_rows=20_000, seed=1)
    fitted = table.regress(draw_target(table, "linear"), shape="linear")
    y = draw_target(later, "linear")
    inputs = Design(fitted.recipe).encode(later.features)
    weights = np.concatenate([fitted.weights["W"], fitted.weights["effects"], fitted.weights["b"][np.newaxis]])
    target = fitted.recipe.target_scaling
    loss = ((inputs.scores(weights)[:, 0] * target.scale + target.mean - y) ** 2).mean() / 2
    assert fitted.comparison is not None
    assert_allclose(fitted.comparison.losses["linear"], loss, rtol=0.15)


def test_order_of_rows_and_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(num_rows=3000)
    y = draw_target(table, "pairs")
    fitted, rows = table.regress(y), table.features
    order = np.random.default_rng(0).permutation(len(y))
    table.features, table.keys = table.features[order], table.keys[order]
    monkeypatch.setattr(tables, "MAX_RESIDENT", 0)  # rows are encoded piece by piece
    again = table.regress(y[order])
    assert again.recipe.pairs == fitted.recipe.pairs
    assert again.penalties == pytest.approx(fitted.penalties)
    scores, expected = (
        raw_units.score_table(raw_units.fold_weights(model.weights, model.recipe, np.float64), model.recipe, rows)
        for model in (again, fitted)
    )
    assert_allclose(scores, expected, rtol=0, atol=1e-9)


def test_a_refit_has_the_weights_of_a_fit_to_all_rows_wherever_these_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(num_rows=3000)
    y = draw_target(table, "pairs")
    recipe = table.make_recipe(y)
    objective, options = Objective(Loss.SQUARED, scale=recipe.target_scaling.scale), FitOptions()
    rows = Examples(table.features, y, table.keys)
    parts = [
        Examples(*(values[part] for values in rows)) for part in (slice(2000), slice(2000, 2100), slice(2100, None))
    ]
    fitted = fit_table(parts[0], recipe, objective, 1, options)
    monkeypatch.setattr(tables, "MAX_RESIDENT", 0)
    monkeypatch.setattr(design, "PIECE_VALUES", 90_000)  # so that some pieces have rows of two parts
    refitted = refit_table(fitted, parts, objective, 1, options)
    assert refitted.penalties == pytest.approx({name: each * 2 / 3 for name, each in fitted.penalties.items()})
    spread = spread_penalties(refitted.penalties, Design(fitted.recipe).groups)
    monkeypatch.undo()
    _, expected = fit_weights(rows.inputs, y, fitted.recipe, 1, objective, spread)
    for name in expected.keys() - {"kink_means", "product_means"}:
        assert_allclose(refitted.weights[name], expected[name], rtol=0, atol=1e-9)
    assert all(refitted.weights[name] is fitted.weights[name] for name in ("kink_means", "product_means"))


def test_one_given_penalty_holds_for_all_weights() -> None:
    table = Table()
    y = draw_target(table, "linear")
    fitted = table.regress(y, shape="linear", weight_decay=0.1)
    reference = Ridge(alpha=0.1 * len(y), tol=1e-12).fit(table.one_hot(), (y - y.mean()) / y.std())
    assert fitted.penalties == {"slopes": 0.1, "levels": 0.1}
    assert_allclose(fitted.weights["W"][:, 0], reference.coef_[:5], rtol=0, atol=1e-6)
    folded = raw_units.fold_weights(fitted.weights, fitted.recipe, np.float64)
    expected = reference.predict(table.one_hot()) * y.std() + y.mean()
    assert_allclose(raw_units.score_table(folded, fitted.recipe, table.features)[:, 0], expected, rtol=1e-6)


def test_a_fold_may_be_missing() -> None:
    folds = assign_folds(np.array([1, 1, 1, 2, 2, 2], np.uint64), is_by_time=False)
    assert {int(number) for number in folds.numbers} <= {0, 1}
    assert isinstance(folds, Folds)
    assert functools.reduce(np.logical_or, [predicted for _, predicted in folds.split()]).all()
