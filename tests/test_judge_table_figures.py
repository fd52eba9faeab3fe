"""Pictures of own tables, by what matplotlib was told to draw, against scikit-learn and the numbers that went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
from matplotlib.figure import Figure
from PIL import Image

from tasks.data.recipe import Column, Columns, Target
from tasks.judging import figures, table_figures
from tasks.serving.raw_units import SHOWN, Coefficient, list_coefficients

RNG = np.random.default_rng(0)
RECIPE = Columns(
    columns=(
        Column(name="area", mean=120.0, scale=30.0),
        Column(name="district", kind="category", levels=("east", "west"), counts=(10, 10)),
        Column(name="garden", kind="boolean", mean=0.5),
    ),
    target=Target(name="price"),
)
WEIGHTS = {"area": 10.0, "district": {"(missing)": 0.0, "east": -50.0, "west": 45.0}, "garden": 200.0}


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def test_coefficients_are_ordered_by_what_a_deviation_of_their_column_does() -> None:
    found = list_coefficients({"weights": WEIGHTS}, RECIPE)
    assert [(each.name, each.value, each.size) for each in found] == [
        ("area", 10.0, 300.0),
        ("garden", 200.0, 200.0),
        ("district = east", -50.0, -50.0),
        ("district = west", 45.0, 45.0),
        ("district = (missing)", 0.0, 0.0),
    ]
    assert list_coefficients({}, RECIPE) == []
    many = Columns(columns=tuple(Column(name=f"x{at}", scale=1.0 + at) for at in range(SHOWN + 1)))
    named = [each.name for each in list_coefficients({"weights": dict.fromkeys(many.names, 1.0)}, many)]
    assert named == list(many.names[:0:-1]), "the largest"


def test_coefficients_of_two_classes_are_log_odds_and_of_more_each_class_has_its_own() -> None:
    halved = {"area": -5.0, "district": {"(missing)": 0.0, "east": 25.0, "west": -22.5}, "garden": -100.0}
    two = list_coefficients({"weights": {"no": halved, "yes": WEIGHTS}}, RECIPE, ("no", "yes"))
    assert [(each.name, each.value) for each in two[:2]] == [("area", 15.0), ("garden", 300.0)]
    three = list_coefficients({"weights": {"a": halved, "b": WEIGHTS, "c": WEIGHTS}}, RECIPE, ("a", "b", "c"))
    assert [each.name for each in three[:3]] == ["b: area", "c: area", "b: garden"]


def test_the_bars_are_the_sizes_and_say_the_values_in_the_units_of_the_data(
    drawn: list[Figure], tmp_path: Path
) -> None:
    table_figures.coefficients(
        list_coefficients({"weights": WEIGHTS}, RECIPE), "change of price with", tmp_path / "c.png"
    )
    (axes,) = drawn[0].axes
    assert [bar.get_width() for bar in axes.patches] == [300, 200, -50, 45, 0]  # type: ignore[attr-defined]
    assert texts(axes.texts) == ["10", "200", "-50", "45", "0"]
    assert texts(axes.get_yticklabels())[0] == "area"
    assert axes.yaxis_inverted(), "the largest on top"
    assert "price" in drawn[0].get_supxlabel()


@pytest.mark.parametrize("name", ["price", "a name of many words " * 5])
def test_no_picture_of_coefficients_has_a_word_cut_off_at_its_edge(name: str, tmp_path: Path) -> None:
    unit = f"change of the log odds of {figures.short(name)} with"
    for found in ([Coefficient(name, 1.25, -3e5)], [Coefficient(name, 0.1 * at, at - 3) for at in range(20)]):
        table_figures.coefficients(found, unit, tmp_path / "c.png")
        grey = np.asarray(Image.open(tmp_path / "c.png").convert("L"))
        assert {int(edge.min()) for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1])} == {255}


def test_names_that_the_font_lacks_letters_for_are_drawn_without_a_warning(tmp_path: Path) -> None:
    found = [Coefficient("面積 🏠 $x_1", 1.0, 1.0)]
    file = table_figures.coefficients(found, "change of 價格 with", tmp_path / "c.png")
    with Image.open(file.path, formats=["PNG"]) as image:
        image.load()


def test_residuals_and_predictions_lie_where_they_should(drawn: list[Figure], tmp_path: Path) -> None:
    truth, predicted = RNG.normal(50, 10, 300), RNG.normal(50, 10, 300)
    table_figures.residuals(predicted, truth, tmp_path / "r.png")
    table_figures.predicted_and_true(predicted, truth, tmp_path / "p.png")
    left, right = drawn[0].axes
    offsets = np.asarray(left.collections[0].get_offsets())
    np.testing.assert_allclose(offsets, np.stack([predicted, truth - predicted], axis=1))
    assert sum(bar.get_width() for bar in right.patches) == 300  # type: ignore[attr-defined]
    (axes,) = drawn[1].axes
    np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets()), np.stack([truth, predicted], axis=1))
    assert texts(axes.get_legend().get_texts()) == ["perfect"]  # type: ignore[union-attr]


def test_points_are_the_larger_the_fewer_there_are(drawn: list[Figure], tmp_path: Path) -> None:
    for count in (63, 300, 5000):
        table_figures.residuals(np.arange(count), np.arange(count), tmp_path / "r.png")
    areas = [float(figure.axes[0].collections[0].get_sizes()[0]) for figure in drawn]  # type: ignore[attr-defined]
    assert areas == sorted(areas, reverse=True)
    across = (2 * np.sqrt(areas[0] / np.pi)) * 110 / 72  # in pixels of the picture, which a page shows at half its size
    assert across / 2 > 5
    assert areas[-1] == 6


def test_of_millions_of_rows_a_few_thousand_are_drawn(drawn: list[Figure], tmp_path: Path) -> None:
    truth = np.arange(1_000_000, dtype=float)
    table_figures.predicted_and_true(truth, truth, tmp_path / "p.png")
    shown = np.asarray(drawn[0].axes[0].collections[0].get_offsets())[:, 0]
    assert len(shown) == table_figures.POINTS
    assert (shown[0], shown[-1]) == (0, 999_999)


def test_rates_are_scikit_learns_ties_included() -> None:
    score, positive = RNG.normal(size=500).round(1), RNG.random(500) < 0.3
    recall, false_rate, precision = table_figures.rates(score, positive)
    expected = sklearn.metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, expected[0])
    np.testing.assert_allclose(recall, expected[1])
    precisions, recalls, _ = sklearn.metrics.precision_recall_curve(positive, score)
    np.testing.assert_allclose(precision, precisions[::-1])
    np.testing.assert_allclose(recall, recalls[::-1])


def test_thresholds_show_both_curves_with_their_areas_and_chance(drawn: list[Figure], tmp_path: Path) -> None:
    score, positive = RNG.normal(size=500), RNG.random(500) < 0.3
    table_figures.thresholds(score, positive, "$late$", tmp_path / "t.png")
    left, right = drawn[0].axes
    area, precision = (
        sklearn.metrics.roc_auc_score(positive, score),
        sklearn.metrics.average_precision_score(positive, score),
    )
    assert texts(left.get_legend().get_texts()) == [f"area {area:.3f}", "chance"]  # type: ignore[union-attr]
    assert texts(right.get_legend().get_texts()) == [f"average precision {precision:.3f}", "chance"]  # type: ignore[union-attr]
    assert np.asarray(right.lines[1].get_ydata()) == pytest.approx(positive.mean())
    assert r"\$late\$" in left.get_legend().get_title().get_text()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "count", [2, pytest.param(60, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.slow)]
)
def test_the_confusion_matrix_of_any_number_of_classes_fits_a_screen(
    drawn: list[Figure], tmp_path: Path, count: int
) -> None:
    names = tuple(f"$class {number} with a name of {'very ' * 20}many words" for number in range(count))
    file = figures.confusion_matrix(np.eye(count, dtype=int), names, tmp_path / "m.png")
    with Image.open(file.path, formats=["PNG"]) as image:
        assert max(image.size) < 3500
    axes = drawn[0].axes[0]
    assert len(axes.texts) == (4 if count == 2 else 0)
    named = [label for label in texts(axes.get_xticklabels()) if "class" in label]
    assert len(named) == (0 if count == 1000 else count)
    assert all(len(label) <= 21 for label in named)
