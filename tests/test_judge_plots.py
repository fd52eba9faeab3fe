"""Pictures, by what matplotlib was told to draw: one claim a picture, against the numbers that went in."""

from collections.abc import Iterator
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
from tasks.machine import lettering
from tasks.records import Epoch
from tasks.serving.raw_units import Coefficient, list_coefficients
from tasks.store.state import Point, Trend

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


def lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Points of each line, by its words."""
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in axes.lines}


def texts(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return texts(found.get_texts())


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]  # type: ignore[attr-defined]


def points(axes: Axes) -> Any:
    """Those of a scatter plot, ``(n, 2)``."""
    return np.asarray(axes.collections[0].get_offsets())


@pytest.mark.parametrize(
    ("accuracy", "names", "scale", "label"),
    [
        (0.8, ["train loss", "validation loss", "train accuracy", "test accuracy"], "linear", "loss (nats), accuracy"),
        (None, ["train loss", "validation loss", "test loss"], "log", "half mean squared error"),
    ],
)
def test_the_learning_curve_shows_what_was_measured_by_epoch_and_the_epoch_that_was_kept(
    accuracy: float | None, names: list[str], scale: str, label: str
) -> None:
    curve = [
        Epoch(
            epoch=number, train_loss=1 / number, test_loss=9.0, validation_loss=2.0,
            train_accuracy=accuracy, test_accuracy=accuracy,
        )
        for number in (1, 2)
    ]  # fmt: skip
    (axes,) = plots.draw_learning_curve(curve, kept_epoch=2).axes
    assert legend(axes) == [*names, "kept: epoch 2"]
    assert lines(axes)["train loss"] == [[1, 1], [2, 1 / 2]]
    assert lines(axes)["kept: epoch 2"] == [[2, 0], [2, 1]]
    assert (axes.get_yscale(), axes.get_ylabel()) == (scale, label)


def test_the_confusion_matrix_has_the_true_classes_in_rows_and_every_count() -> None:
    counts: list[list[int]] = [[8, 2, 0], [0, 0, 0], [1, 1, 2]]
    truth, answer = (np.repeat(each, np.ravel(counts)) for each in (np.arange(9) // 3, np.arange(9) % 3))
    (axes,) = plots.draw_confusion_matrix(truth, answer, ("a", "b", "c")).axes
    shares = [[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), shares)
    found = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert {at: int(text) for at, (text, _) in found.items()} == {
        (column, row): counts[row][column] for row in range(3) for column in range(3)
    }
    assert (found[0, 0][1], found[2, 2][1]) == ("white", "black"), "readable on either shade"
    assert texts([*axes.get_xticklabels(), *axes.get_yticklabels()]) == [*"abcabc"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")


def test_of_more_classes_than_there_is_room_for_those_that_are_mistaken_most_are_drawn() -> None:
    truth = np.repeat(np.arange(150), 8)
    truth, answer = np.append(truth, [7] * 6 + [140] * 4), np.append(truth, [9] * 6 + [3] * 4)
    (axes,) = plots.draw_confusion_matrix(truth, answer, [f"class {number}" for number in range(150)]).axes
    assert axes.get_title() == "Confusion matrix of the 40 of 150 classes that are mistaken most"
    names, counts = texts(axes.get_yticklabels()), {text.get_position(): text.get_text() for text in axes.texts}
    assert (counts[names.index("class 9"), names.index("class 7")], counts[0, 0]) == ("6", "8")
    assert counts[names.index("class 3"), names.index("class 140")] == "4"


def test_the_reliability_diagram_has_the_bins_of_the_calibration_error_which_are_scikit_learns() -> None:
    """A confidence that is the edge of two bins is in the lower one."""
    confidence = np.append(RNG.uniform(0.1, 1, 3000), np.repeat([0.2, 0.4, 0.6, 1.0], 10))
    is_right = RNG.random(3040) < confidence**2
    truth = np.ones(3040, int)
    bins = bin_by_confidence(Answers(truth, is_right.astype(int), truth, confidence))
    upper, lower = plots.draw_reliability(bins).axes
    accuracy, _ = sklearn.calibration.calibration_curve(is_right, confidence, n_bins=15)
    assert heights(upper) == [0, *map(pytest.approx, accuracy)], "no confidence is below a fifteenth"
    assert heights(lower) == bins.counts.tolist()
    gaps = [abs(each - confidence[bins_of(confidence) == at].mean()) for at, each in enumerate(accuracy, 1)]
    assert bins.error == pytest.approx(np.average(gaps, weights=bins.counts[1:]))
    assert lines(upper)["perfect calibration"] == [[0, 0], [1, 1]]


def bins_of(confidence: Any) -> Any:
    return np.ceil(np.round(confidence * 15, 9)).astype(int) - 1


def test_the_fit_has_learned_beside_true_parameters_and_residuals_beside_their_density() -> None:
    residuals = RNG.normal(0, 0.3, 2000).astype(np.float32)
    left, right = plots.draw_fit([2.0, -3.5, 4.25], [2.0, -3.4, 4.2], residuals, 0.3).axes
    assert heights(left) == [2.0, -3.5, 4.25, 2.0, -3.4, 4.2]
    assert (texts(left.get_xticklabels()), legend(left)) == (["w0", "w1", "b"], ["learned", "true"])
    x, y = np.asarray(right.lines[0].get_xydata()).T
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01), "a density"
    assert max(heights(right)) == pytest.approx(y.max(), rel=0.25)
    assert heights(plots.draw_fit([0.0, 4.2], None, np.zeros(20), 1e-9).axes[0]) == [0.0, 4.2]


@pytest.mark.parametrize("shape", [(4, 4), (1, 1), (4, 40), (40, 4, 3), (8, 8, 3)])
def test_every_image_stands_whole_in_its_colours_under_its_labels_and_errors_are_red(shape: tuple[int, ...]) -> None:
    images = RNG.integers(0, 255, (11, *shape), np.uint8)
    predicted, true = [*"aabaaaaaaa", "a name of very many words"], [*"aaaaaaaaaaa"]
    drawn = [axes for axes in plots.draw_image_grid(images, predicted, true).axes if axes.images]
    titles = [axes.get_title() for axes in drawn]
    assert titles[:3] == ["a\na", "a\na", "a\nb"]
    assert [at for at, axes in enumerate(drawn) if axes.title.get_color() == plots.WRONG] == [2, 10]
    assert max(len(line) for title in titles for line in title.split("\n")) <= 16
    for axes, image in zip(drawn, images, strict=True):
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), image)
        assert axes.images[0].get_clim() == (0, 255)
    unlabelled = plots.draw_image_grid(images, predicted, None).axes
    found = [(axes.get_title(), axes.title.get_color()) for axes in unlabelled[:3]]
    assert found == [("a", plots.INK), ("a", plots.INK), ("b", plots.INK)]


def test_weights_of_a_class_are_against_the_mean_of_all_on_one_scale_and_of_colour_have_its_hue() -> None:
    """Grey is what says nothing; of very many classes the first are drawn, and that is said."""
    red, blue = np.zeros((2, 2, 2, 3))
    red[0, 0, 0] = blue[0, 0, 2] = 1
    drawn = plots.draw_class_weights(np.stack([red, blue]), ("red", "blue")).axes
    corners = [np.asarray(axes.images[0].get_array())[0, 0].tolist() for axes in drawn[:2]]
    assert corners == [[255, 127, 0], [0, 127, 255]]
    assert np.asarray(drawn[0].images[0].get_array())[1, 1].tolist() == [127] * 3
    grey = plots.draw_class_weights(np.array([-1.0, 0, 3, *[0] * 297])[:, None, None] * np.ones((2, 2)), [*"abc"] * 100)
    assert "to ±3" in grey.get_suptitle()
    assert "the first 40 of 300 classes" in grey.get_suptitle()
    assert [axes.get_title() for axes in grey.axes] == ([*"abc"] * 14)[:40]


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


def test_coefficients_of_two_classes_are_log_odds_and_of_more_each_class_has_its_own() -> None:
    halved = {"area": -5.0, "district": {"(missing)": 0.0, "east": 25.0, "west": -22.5}, "garden": -100.0}
    two = list_coefficients({"weights": {"no": halved, "yes": WEIGHTS}}, RECIPE, ("no", "yes"))
    assert [(each.name, each.value) for each in two[:2]] == [("area", 15.0), ("garden", 300.0)]
    three = list_coefficients({"weights": {"a": halved, "b": WEIGHTS, "c": WEIGHTS}}, RECIPE, ("a", "b", "c"))
    assert [each.name for each in three[:3]] == ["b: area", "c: area", "b: garden"]


def test_the_bars_of_coefficients_are_the_sizes_and_say_the_values_in_the_units_of_the_data() -> None:
    figure = plots.draw_coefficients(list_coefficients({"weights": WEIGHTS}, RECIPE), "change of price with")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [300, 200, -50, 45, 0]  # type: ignore[attr-defined]
    assert texts(axes.texts) == ["10", "200", "-50", "45", "0"]
    assert (texts(axes.get_yticklabels())[0], axes.yaxis_inverted()) == ("area", True), "the largest on top"
    assert "price" in figure.get_supxlabel()


def test_residuals_and_predictions_lie_where_they_should() -> None:
    truth, predicted = RNG.normal(50, 10, 300), RNG.normal(50, 10, 300)
    left, right = plots.draw_residuals(predicted, truth).axes
    np.testing.assert_allclose(points(left), np.stack([predicted, truth - predicted], axis=1))
    assert sum(bar.get_width() for bar in right.patches) == 300  # type: ignore[attr-defined]
    (axes,) = plots.draw_predictions(predicted, truth).axes
    np.testing.assert_allclose(points(axes), np.stack([truth, predicted], axis=1))


def test_thresholds_show_scikit_learns_curves_with_their_areas_and_chance() -> None:
    score, positive = RNG.normal(size=500).round(1), RNG.random(500) < 0.3  # with ties
    recall, false_rate, precision = plots.find_rates(score, positive)
    expected = sklearn.metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose([false_rate, recall], expected[:2])
    precisions, recalls, _ = sklearn.metrics.precision_recall_curve(positive, score)
    np.testing.assert_allclose([precision, recall], [precisions[::-1], recalls[::-1]])
    left, right = plots.draw_thresholds(score, positive, "$late$").axes
    area = sklearn.metrics.roc_auc_score(positive, score)
    average = sklearn.metrics.average_precision_score(positive, score)
    assert legend(left) == [f"area {area:.3f}", "chance"]
    assert legend(right) == [f"average precision {average:.3f}", "chance"]
    assert lines(right)["chance"][0][1] == pytest.approx(positive.mean())


def test_each_period_has_its_figure_and_interval() -> None:
    periods = [
        {"period": f"2026-0{month}", "metrics": {"rmse": month}, "intervals": {"rmse": [month - 0.5, month + 1]}}
        for month in (1, 2)
    ]
    (axes,) = plots.draw_periods(periods, "rmse").axes
    assert texts(axes.get_xticklabels()) == ["2026-01", "2026-02"]
    (bars,) = axes.collections
    assert [segment.tolist() for segment in bars.get_segments()] == [  # type: ignore[attr-defined]
        [[0, 0.5], [0, 2]],
        [[1, 1.5], [1, 3]],
    ]


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
    assert found["published"] == [[0, 0.5], [4, 0.4]]
    assert (found["refused"], found["passed, not published"]) == ([[1, 20.0]], [[5, 0.45]])
    assert found["unchanged"] == [[2, 0.5]], "beside the live version"
    assert (found["failed before a verdict"][0][0], found["failed before a verdict"][0][1] < 0.4) == (3, True)
    assert [at for at, _ in found["the strictest gate"]] == [0, 1, 4, 5]
    assert "killed or interrupted" not in found
    assert sorted(texts(axes.texts)) == ["v1", "v2"]
    assert (axes.get_yscale(), texts(axes.get_xticklabels())[0]) == ("log", "1 Nov")
    assert plots.tell_dates(["2026-11-03T04:05:00+00:00"] * 2) == ["04:05"] * 2, "days would all be the same"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["price", "a name of many words " * 5, "面積 🏠 $x_1"])
def test_no_word_is_cut_off_at_an_edge_and_names_in_any_letters_are_drawn_without_a_warning(
    name: str, tmp_path: Path
) -> None:
    found = [Coefficient(name, 0.1 * at, at - 3) for at in range(20)]
    unit = f"change of the log odds of {plots.shorten(name)} with"
    for at, figure in enumerate(
        [
            plots.draw_coefficients(found[:1], unit),
            plots.draw_coefficients(found, unit),
            plots.draw_confusion_matrix(np.arange(2), np.arange(2), (name, name)),
            plots.draw_thresholds(np.arange(4.0), np.arange(4) > 1, name),
        ]
    ):
        file = plots.save(figure, tmp_path / f"{at}.png")
        with Image.open(file.path, formats=["PNG"]) as image:
            grey = np.asarray(image.convert("L"))
        assert {int(edge.min()) for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1])} == {255}


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    curve = [Epoch(epoch=1, train_loss=0.5, test_loss=0.25)]
    drawn = [plots.draw_learning_curve(curve) for _ in range(2)]
    assert len({plots.save(each, tmp_path / f"{at}.png").sha256 for at, each in enumerate(drawn)}) == 1


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What is known of fonts is found anew, before and after."""
    for remembered in (lettering.families, lettering._is_drawn):
        remembered.cache_clear()
    yield
    for remembered in (lettering.families, lettering._is_drawn):
        remembered.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_letters_that_no_font_has_are_escaped_and_all_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "FAMILIES", ())
    assert plots.shorten("City = 上海, São →") == r"City = \u4e0a\u6d77, São →"
