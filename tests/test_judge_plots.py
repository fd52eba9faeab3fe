"""Pictures, by what matplotlib was told to draw: one claim a picture, against the numbers that went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from own_tables import category
from tasks.data.recipe import Column, Columns
from tasks.judging import plots
from tasks.judging.metrics import Answers, bin_by_confidence
from tasks.machine import fonts
from tasks.serving.raw_units import list_coefficients
from tasks.store.state import Point, Trend

RNG = np.random.default_rng(0)


def lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Points of each line, by its words."""
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def pixels(axes: Axes) -> Any:
    return np.asarray(axes.images[0].get_array())


def test_the_confusion_matrix_has_the_true_classes_in_rows_and_of_many_those_that_are_mistaken_most() -> None:
    truth, answer = np.repeat([[0, 0, 2, 2], [0, 1, 0, 2]], [8, 2, 1, 3], axis=1)
    (axes,) = plots.draw_confusion_matrix(truth, answer, "abc").axes
    assert_allclose(pixels(axes), np.array([[8, 2, 0], [0, 0, 0], [2.5, 0, 7.5]]) / 10)
    assert texts(axes.texts) == [*"820000103"]
    truth, answer = (np.append(np.arange(150), [code] * 4) for code in (140, 3))
    (axes,) = plots.draw_confusion_matrix(truth, answer, [*map(str, range(150))]).axes
    assert axes.get_title() == "Confusion matrix of the 40 of 150 classes that are mistaken most"
    assert {"3", "140"} <= {*texts(axes.get_yticklabels())}


def test_the_reliability_diagram_has_the_bins_of_the_calibration_error_which_are_scikit_learns() -> None:
    """A confidence that is the edge of two bins is in the lower one."""
    confidence = np.append(RNG.uniform(0.1, 1, 3000), np.repeat([0.2, 0.4, 0.6, 1.0], 10))
    is_right, truth = RNG.random(3040) < confidence**2, np.ones(3040, int)
    bins = bin_by_confidence(Answers(truth, is_right.astype(int), truth, confidence))
    accuracy, _ = sklearn.calibration.calibration_curve(is_right, confidence, n_bins=15)
    drawn = [[bar.get_height() for bar in axes.patches] for axes in plots.draw_reliability(bins).axes]  # type: ignore[attr-defined]
    assert drawn == [[0, *map(pytest.approx, accuracy)], bins.counts.tolist()], "none is below a fifteenth"


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (4, 40), (40, 4, 3)])
def test_every_image_stands_whole_in_its_colours_under_its_labels_and_errors_are_red(shape: tuple[int, ...]) -> None:
    images = RNG.integers(0, 255, (3, *shape), np.uint8)
    drawn = [axes for axes in plots.draw_misclassified(images, "aab", "aaa").axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["a\na", "a\na", "a\nb"]
    assert [at for at, axes in enumerate(drawn) if axes.title.get_color() == plots.WRONG] == [2]
    assert_array_equal([pixels(axes) for axes in drawn], images)
    assert {axes.images[0].get_clim() for axes in drawn} == {(0, 255)}


def test_weights_of_a_class_are_against_the_mean_of_all() -> None:
    """Grey is what says nothing."""
    drawn = plots.draw_class_weights(np.array([[[[1.0, 0, 0]]], [[[0, 0, 1.0]]]]), "ab").axes[:2]
    assert [pixels(each)[0, 0].tolist() for each in drawn] == [[255, 127, 0], [0, 127, 255]]


def test_coefficients_are_ordered_by_what_a_deviation_does() -> None:
    """Of two classes they are log odds; of more each class has its own."""
    recipe = Columns(columns=(Column(name="area", mean=120.0, scale=30.0), category("city", (10, 10))))
    weights = {"area": 10.0, "city": {"(missing)": 0.0, "city-0": -50.0, "city-1": 45.0}}
    found = list_coefficients({"weights": weights}, recipe)
    assert [each.name for each in found] == ["area", "city = city-0", "city = city-1", "city = (missing)"]
    assert [(each.value, each.size) for each in found] == [(10, 300), (-50, -50), (45, 45), (0, 0)]
    none = {"area": 4.0, "city": {"(missing)": 0.0, "city-0": 0.0, "city-1": 0.0}}
    two = list_coefficients({"weights": {"no": none, "yes": weights}}, recipe, ("no", "yes"))
    assert (two[0].name, two[0].value) == ("area", 6.0)
    three = list_coefficients({"weights": {"a": none, "b": weights, "c": weights}}, recipe, ("a", "b", "c"))
    assert [each.name for each in three[:3]] == ["b: area", "c: area", "a: area"]


def test_thresholds_show_scikit_learns_curves_with_their_areas_and_chance() -> None:
    score, positive = RNG.normal(size=500).round(1), RNG.random(500) < 0.3  # with ties
    left, right = map(lines, plots.draw_thresholds(score, positive, "$late$").axes)
    false_rate, recall, _ = sklearn.metrics.roc_curve(positive, score, drop_intermediate=False)
    area = sklearn.metrics.roc_auc_score(positive, score)
    assert_allclose(left[f"area {area:.3f}"], np.column_stack([false_rate, recall]))
    precision, recall, _ = sklearn.metrics.precision_recall_curve(positive, score)
    average = sklearn.metrics.average_precision_score(positive, score)
    assert_allclose(right[f"average precision {average:.3f}"], np.column_stack([recall, precision])[::-1])
    assert left["chance"] == [[0, 0], [1, 1]]
    assert right["chance"][0][1] == pytest.approx(positive.mean())


def test_a_trend_has_a_mark_for_each_run_by_its_outcome_and_versions_where_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that was unchanged has it beside the live version."""
    rows: list[Any] = [
        ("published", 0.5, 1.0, 1, 0.5), ("refused", 20.0, 1.0, 1, 0.5), ("unchanged", None, None, 1, 0.5),
        ("failed", None, None, 1, 0.5), ("published", 0.4, 1.0, 2, 0.4), ("judged", 0.45, 1.0, 2, 0.4),
    ]  # fmt: skip
    made: list[Figure] = []
    monkeypatch.setattr(plots, "render_png", made.append)
    points = (Point(f"2026-11-0{day}T04:05", *row) for day, row in enumerate(rows, 1))
    plots.draw_trend(Trend("test loss", True, tuple(points)))
    (axes,) = made[0].axes
    found = lines(axes)
    assert [at for at, _ in found["failed before a verdict"]] == [3]
    assert (found["published"], found["refused"]) == ([[0, 0.5], [4, 0.4]], [[1, 20.0]])
    assert (found["passed, not published"], found["unchanged"]) == ([[5, 0.45]], [[2, 0.5]])
    assert (sorted(texts(axes.texts)), texts(axes.get_xticklabels())[0]) == (["v1", "v2"], "1 Nov")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["price", "a name of many words " * 5, "面積 🏠 $x_1"])
def test_no_word_is_cut_off_at_an_edge_and_names_in_any_letters_are_drawn_without_a_warning(
    name: str, tmp_path: Path
) -> None:
    for figure in (
        plots.draw_confusion_matrix(np.arange(2), np.arange(2), (name, name)),
        plots.draw_thresholds(np.arange(4.0), np.arange(4) > 1, name),
    ):
        with Image.open(plots.save(figure, tmp_path / "drawn.png").path) as image:
            grey = np.asarray(image.convert("L"))
        assert {int(edge.min()) for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1])} == {255}


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    drawn = [plots.draw_residuals(np.arange(9.0), np.arange(9.0)) for _ in range(2)]
    assert len({plots.save(each, tmp_path / f"{at}.png").sha256 for at, each in enumerate(drawn)}) == 1


def test_letters_that_no_font_has_are_escaped_and_all_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for remembered in ("list_families", "_open_fonts"):  # what is known of fonts is found anew
        monkeypatch.setattr(fonts, remembered, getattr(fonts, remembered).__wrapped__)
    monkeypatch.setattr(fonts, "FAMILIES", ())
    assert plots.shorten("City = 上海, São →") == r"City = \u4e0a\u6d77, São →"
