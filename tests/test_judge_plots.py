"""Pictures, by what matplotlib was told to draw: one claim a picture, against the numbers that went in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tasks.data.recipe import Column, Columns, Target
from tasks.judging import plots
from tasks.judging.metrics import Answers, bin_by_confidence
from tasks.machine import fonts
from tasks.records import Epoch
from tasks.serving.raw_units import Coefficient, list_coefficients
from tasks.store.state import Point, Trend

RNG = np.random.default_rng(0)


def lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Points of each line, by its words."""
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def legend(axes: Axes) -> list[str]:
    return texts(axes.get_legend().get_texts())  # type: ignore[union-attr]


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]


def pixels(axes: Axes) -> Any:
    return np.asarray(axes.images[0].get_array())


def test_the_learning_curve_shows_what_was_measured_by_epoch_and_the_epoch_that_was_kept() -> None:
    figures: dict[str, Any] = {"test_loss": 9.0, "validation_loss": 2.0}
    for accuracy, scale in (({"train_accuracy": 0.8, "test_accuracy": 0.8}, "linear"), ({}, "log")):
        curve = [Epoch(epoch=number, train_loss=1 / number, **figures, **accuracy) for number in (1, 2)]
        (axes,) = plots.draw_learning_curve(curve, kept_epoch=2).axes
        found = lines(axes)
        last = ["train accuracy", "test accuracy"] if accuracy else ["test loss"]
        assert legend(axes) == ["train loss", "validation loss", *last, "kept: epoch 2"]
        assert (found["train loss"], axes.get_yscale()) == ([[1, 1], [2, 1 / 2]], scale)
        assert [at for at, _ in found["kept: epoch 2"]] == [2, 2]


def test_the_confusion_matrix_has_the_true_classes_in_rows_and_of_many_those_that_are_mistaken_most() -> None:
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    truth, answer = (np.repeat(each, counts.ravel()) for each in (np.arange(9) // 3, np.arange(9) % 3))
    (axes,) = plots.draw_confusion_matrix(truth, answer, ("a", "b", "c")).axes
    np.testing.assert_allclose(pixels(axes), counts / [[10], [1], [4]])
    found = {text.get_position(): int(text.get_text()) for text in axes.texts}
    assert found == {(column, row): counts[row, column] for row in range(3) for column in range(3)}
    truth = np.append(np.arange(150), [140] * 4)
    answer = np.append(np.arange(150), [3] * 4)
    (axes,) = plots.draw_confusion_matrix(truth, answer, [f"class {number}" for number in range(150)]).axes
    assert axes.get_title() == "Confusion matrix of the 40 of 150 classes that are mistaken most"
    assert {"class 3", "class 140"} <= {*texts(axes.get_yticklabels())}


def test_the_reliability_diagram_has_the_bins_of_the_calibration_error_which_are_scikit_learns() -> None:
    """A confidence that is the edge of two bins is in the lower one."""
    confidence = np.append(RNG.uniform(0.1, 1, 3000), np.repeat([0.2, 0.4, 0.6, 1.0], 10))
    is_right = RNG.random(3040) < confidence**2
    truth = np.ones(3040, int)
    bins = bin_by_confidence(Answers(truth, is_right.astype(int), truth, confidence))
    upper, lower = plots.draw_reliability(bins).axes
    accuracy, mean = sklearn.calibration.calibration_curve(is_right, confidence, n_bins=15)
    assert heights(upper) == [0, *map(pytest.approx, accuracy)], "no confidence is below a fifteenth"
    assert heights(lower) == bins.counts.tolist()
    assert bins.error == pytest.approx(np.average(np.abs(accuracy - mean), weights=bins.counts[1:]))


def test_the_fit_has_learned_beside_true_parameters_and_residuals_and_predictions_lie_where_they_should() -> None:
    left, _ = plots.draw_fit([2.0, -3.5, 4.25], [2.0, -3.4, 4.2], RNG.normal(0, 0.3, 2000).astype(np.float32), 0.3).axes
    assert heights(left) == [2.0, -3.5, 4.25, 2.0, -3.4, 4.2]
    assert (texts(left.get_xticklabels()), legend(left)) == (["w0", "w1", "b"], ["learned", "true"])
    truth, predicted = RNG.normal(50, 10, (2, 300))
    residuals, _ = plots.draw_residuals(predicted, truth).axes
    (predictions,) = plots.draw_predictions(predicted, truth).axes
    for axes, points in ((residuals, (predicted, truth - predicted)), (predictions, (truth, predicted))):
        np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets()), np.stack(points, axis=1))


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (4, 40), (40, 4, 3)])
def test_every_image_stands_whole_in_its_colours_under_its_labels_and_errors_are_red(shape: tuple[int, ...]) -> None:
    images = RNG.integers(0, 255, (11, *shape), np.uint8)
    predicted = [*"aabaaaaaaa", "a name of very many words"]
    for true, wrong in (([*"aaaaaaaaaaa"], [2, 10]), (None, [])):
        drawn = [axes for axes in plots.draw_image_grid(images, predicted, true).axes if axes.images]
        assert [axes.get_title() for axes in drawn[:3]] == (["a\na", "a\na", "a\nb"] if true else ["a", "a", "b"])
        assert [at for at, axes in enumerate(drawn) if axes.title.get_color() == plots.WRONG] == wrong
        for axes, image in zip(drawn, images, strict=True):
            np.testing.assert_array_equal(pixels(axes), image)
            assert axes.images[0].get_clim() == (0, 255)


def test_weights_of_a_class_are_against_the_mean_of_all_and_of_very_many_classes_the_first_are_drawn() -> None:
    """Grey is what says nothing."""
    red, blue = np.zeros((2, 2, 2, 3))
    red[0, 0, 0] = blue[0, 0, 2] = 1
    drawn = [pixels(axes) for axes in plots.draw_class_weights(np.stack([red, blue]), ("red", "blue")).axes[:2]]
    assert [each[0, 0].tolist() for each in drawn] == [[255, 127, 0], [0, 127, 255]]
    many = plots.draw_class_weights(np.zeros((300, 2, 2)), [*"abc"] * 100)
    assert "the first 40 of 300 classes" in many.get_suptitle()


def test_coefficients_are_ordered_by_what_a_deviation_does_and_drawn_in_the_units_of_the_data() -> None:
    """Of two classes they are log odds; of more each class has its own."""
    district = Column(name="district", kind="category", levels=("east", "west"), counts=(10, 10))
    area, garden = Column(name="area", mean=120.0, scale=30.0), Column(name="garden", kind="boolean", mean=0.5)
    recipe = Columns(columns=(area, district, garden), target=Target(name="price"))
    weights = {"area": 10.0, "district": {"(missing)": 0.0, "east": -50.0, "west": 45.0}, "garden": 200.0}
    found = list_coefficients({"weights": weights}, recipe)
    names = ["area", "garden", "district = east", "district = west", "district = (missing)"]
    assert [each.name for each in found] == names
    (axes,) = plots.draw_coefficients(found, "change of price with").axes
    assert [bar.get_width() for bar in axes.patches] == [300, 200, -50, 45, 0]  # type: ignore[attr-defined]
    assert (texts(axes.texts), axes.yaxis_inverted()) == (["10", "200", "-50", "45", "0"], True)
    none = {"area": 0.0, "district": {"(missing)": 0.0, "east": 0.0, "west": 0.0}, "garden": 50.0}
    two = list_coefficients({"weights": {"no": none, "yes": weights}}, recipe, ("no", "yes"))
    assert [(each.name, each.value) for each in two[:2]] == [("area", 10.0), ("garden", 150.0)]
    three = list_coefficients({"weights": {"a": none, "b": weights, "c": weights}}, recipe, ("a", "b", "c"))
    assert [each.name for each in three[:3]] == ["b: area", "c: area", "b: garden"]


def test_thresholds_show_scikit_learns_curves_with_their_areas_and_chance() -> None:
    score, positive = RNG.normal(size=500).round(1), RNG.random(500) < 0.3  # with ties
    recall, false_rate, precision = plots.find_rates(score, positive)
    expected = sklearn.metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose([false_rate, recall], expected[:2])
    precisions, recalls, _ = sklearn.metrics.precision_recall_curve(positive, score)
    np.testing.assert_allclose([precision, recall], [precisions[::-1], recalls[::-1]])
    left, right = plots.draw_thresholds(score, positive, "$late$").axes
    assert legend(left) == [f"area {sklearn.metrics.roc_auc_score(positive, score):.3f}", "chance"]
    average = sklearn.metrics.average_precision_score(positive, score)
    assert legend(right) == [f"average precision {average:.3f}", "chance"]
    assert lines(right)["chance"][0][1] == pytest.approx(positive.mean())


def test_a_trend_has_a_mark_for_each_run_by_its_outcome_and_versions_where_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[Any] = [
        ("published", 0.5, 1.0, 1, 0.5), ("refused", 20.0, 1.0, 1, 0.5), ("unchanged", None, None, 1, 0.5),
        ("failed", None, None, 1, 0.5), ("published", 0.4, 1.0, 2, 0.4), ("judged", 0.45, 1.0, 2, 0.4),
    ]  # fmt: skip
    trend = Trend("test loss", True, tuple(Point(f"2026-11-0{day}T04:05", *row) for day, row in enumerate(rows, 1)))
    made: list[Figure] = []
    monkeypatch.setattr(plots, "render_png", made.append)
    plots.draw_trend(trend)
    (axes,) = made[0].axes
    found = lines(axes)
    assert (found["published"], found["refused"]) == ([[0, 0.5], [4, 0.4]], [[1, 20.0]])
    assert found["passed, not published"] == [[5, 0.45]]
    assert found["unchanged"] == [[2, 0.5]], "beside the live version"
    assert [at for at, _ in found["failed before a verdict"]] == [3]
    assert [at for at, _ in found["the strictest gate"]] == [0, 1, 4, 5]
    assert (sorted(texts(axes.texts)), texts(axes.get_xticklabels())[0]) == (["v1", "v2"], "1 Nov")
    assert plots.tell_dates(["2026-11-03T04:05:00+00:00"] * 2) == ["04:05"] * 2, "days would all be the same"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["price", "a name of many words " * 5, "面積 🏠 $x_1"])
def test_no_word_is_cut_off_at_an_edge_and_names_in_any_letters_are_drawn_without_a_warning(
    name: str, tmp_path: Path
) -> None:
    found = [Coefficient(name, 0.1 * at, at - 3) for at in range(20)]
    drawn = [
        plots.draw_coefficients(found, f"change of the log odds of {plots.shorten(name)} with"),
        plots.draw_confusion_matrix(np.arange(2), np.arange(2), (name, name)),
        plots.draw_thresholds(np.arange(4.0), np.arange(4) > 1, name),
    ]
    for at, figure in enumerate(drawn):
        file = plots.save(figure, tmp_path / f"{at}.png")
        with Image.open(file.path, formats=["PNG"]) as image:
            grey = np.asarray(image.convert("L"))
        assert {int(edge.min()) for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1])} == {255}


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    curve = [Epoch(epoch=1, train_loss=0.5, test_loss=0.25)]
    drawn = [plots.draw_learning_curve(curve) for _ in range(2)]
    assert len({plots.save(each, tmp_path / f"{at}.png").sha256 for at, each in enumerate(drawn)}) == 1


def test_letters_that_no_font_has_are_escaped_and_all_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for remembered in ("list_families", "_is_drawn"):  # what is known of fonts is found anew
        monkeypatch.setattr(fonts, remembered, getattr(fonts, remembered).__wrapped__)
    monkeypatch.setattr(fonts, "FAMILIES", ())
    assert plots.shorten("City = 上海, São →") == r"City = \u4e0a\u6d77, São →"
