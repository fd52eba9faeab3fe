"""Pictures, by what matplotlib was told to draw: bars, lines, texts and limits against the numbers that went in."""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.calibration
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from PIL import Image

from candidate import plain
from tasks.data.prepared_splits import ValidatedDataset
from tasks.judging import figures, image_figures, task
from tasks.judging.metrics import calibration_bins
from tasks.machine import lettering
from tasks.networks import metrics
from tasks.parameters import Data, LinearTraining
from tasks.preprocess import preprocess
from tasks.records import Epoch, RawDataset
from tasks.store.run_folder import RunFolder
from tasks.train import train


def lines(axes: Axes) -> dict[str, Any]:
    return {str(line.get_label()): line for line in axes.lines}


def test_the_learning_curve_shows_the_validation_loss_and_the_epoch_that_was_kept(drawn: list[Figure]) -> None:
    run, raw = RunFolder.open("test-run", {}), RawDataset(name="synthetic-linear", source="generated", files={})
    synthetic = plain(preprocess)(run, ValidatedDataset(raw=raw), Data(), 0)

    def linear(**options: Any) -> LinearTraining:
        return LinearTraining.model_validate(options)

    trained = plain(train)(run, synthetic, linear(num_epochs=4, validation=0.1, patience=3))
    shown = lines(drawn[-1].axes[0])
    expected = [point.validation_loss for point in trained.learning_curve]
    assert shown["validation loss"].get_ydata() == pytest.approx(expected)
    assert set(np.asarray(shown[f"kept: epoch {trained.kept_epoch}"].get_xdata())) == {trained.kept_epoch}
    plain(train)(run, synthetic, linear(num_epochs=2))
    assert set(lines(drawn[-1].axes[0])) == {"train loss", "test loss"}
    assert drawn[-1].axes[0].get_yscale() == "log"


def test_the_learning_curve_of_a_classifier_has_losses_and_accuracies_on_one_axis(
    drawn: list[Figure], tmp_path: Path
) -> None:
    """The book's Animator: the test loss is not among them."""
    curve = [
        Epoch(epoch=number, train_loss=1 / number, train_accuracy=0.8, test_loss=9.0, test_accuracy=0.1 * number)
        for number in (1, 2, 3)
    ]
    figures.learning_curve(curve, task.CURVES_OF_CLASSES, tmp_path / "curve.png", kept_epoch=3)
    axes = drawn[0].axes[0]
    assert set(lines(axes)) == {"train loss", "train accuracy", "test accuracy"}
    assert lines(axes)["train loss"].get_xydata().tolist() == [[1, 1], [2, 1 / 2], [3, 1 / 3]]
    assert lines(axes)["test accuracy"].get_ydata() == pytest.approx([0.1, 0.2, 0.3])
    assert (axes.get_yscale(), axes.get_ylabel(), axes.get_xlabel()) == ("linear", "loss (nats), accuracy", "epoch")
    assert {text.get_text() for text in axes.get_legend().get_texts()} == set(lines(axes))  # type: ignore[union-attr]


def test_the_confusion_matrix_has_the_true_classes_in_rows_and_every_count(drawn: list[Figure], tmp_path: Path) -> None:
    counts: list[list[int]] = [[8, 2, 0], [0, 0, 0], [1, 1, 2]]
    figures.confusion_matrix(counts, ("a", "b", "c"), tmp_path / "matrix.png")
    axes = drawn[0].axes[0]
    (image,) = axes.images
    shares = np.array([[0.8, 0.2, 0.0], [0.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(np.asarray(image.get_array()), shares)
    texts = {tuple(map(int, text.get_position())): text for text in axes.texts}
    assert {at: int(text.get_text()) for at, text in texts.items()} == {
        (column, row): counts[row][column] for row in range(3) for column in range(3)
    }
    assert (texts[0, 0].get_color(), texts[2, 2].get_color()) == ("white", "black"), "readable on either shade"
    assert [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())] == [*"abcabc"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true", "predicted")


def test_the_reliability_diagram_has_the_accuracy_of_each_bin_as_scikit_learn_counts_it(
    drawn: list[Figure], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 3000)
    correct = rng.random(3000) < confidence**2
    figures.reliability(calibration_bins(confidence, correct), tmp_path / "reliability.png")
    upper, lower = drawn[0].axes
    accuracy, _ = sklearn.calibration.calibration_curve(correct, confidence, n_bins=15)
    heights = [bar.get_height() for bar in upper.patches if isinstance(bar.get_height(), float)]  # type: ignore[attr-defined]
    assert len(heights) == 15
    assert heights[0] == 0, "no confidence is below a fifteenth"
    assert heights[1:] == pytest.approx(accuracy)
    counts, _ = np.histogram(confidence, bins=15, range=(0, 1))
    assert [bar.get_height() for bar in lower.patches] == counts.tolist()  # type: ignore[attr-defined]
    assert {round(bar.get_width() * 15, 9) for bar in lower.patches} == {1.0}  # type: ignore[attr-defined]
    assert (upper.get_xlim(), upper.get_ylim()) == ((0, 1), (0, 1))
    assert lines(upper)["perfect calibration"].get_xydata().tolist() == [[0, 0], [1, 1]]


def test_picture_and_figure_of_calibration_have_the_same_bins_at_their_edges_too(
    drawn: list[Figure], tmp_path: Path
) -> None:
    """A confidence that is the edge of two bins is in the lower one."""
    confidence = np.repeat([0.2, 0.4, 0.6, 1.0], [10, 20, 30, 40])
    is_right = np.arange(100) % 2 == 0
    bins = calibration_bins(confidence, is_right)
    assert {at: count for at, count in enumerate(bins.counts.tolist()) if count} == {2: 10, 5: 20, 8: 30, 14: 40}
    gaps = [abs(each - 0.5) for each in (0.2, 0.4, 0.6, 1.0)]
    assert bins.error == pytest.approx(np.average(gaps, weights=[10, 20, 30, 40]))
    figures.reliability(bins, tmp_path / "reliability.png")
    _, lower = drawn[0].axes
    assert [bar.get_height() for bar in lower.patches] == bins.counts.tolist()  # type: ignore[attr-defined]


def test_the_fit_has_learned_beside_true_parameters_and_residuals_beside_their_density(
    drawn: list[Figure], tmp_path: Path
) -> None:
    residuals = np.random.default_rng(0).normal(0, 0.3, 2000).astype(np.float32)
    figures.fit([2.0, -3.5, 4.25], [2.0, -3.4, 4.2], residuals, 0.3, tmp_path / "fit.png")
    left, right = drawn[0].axes
    assert [bar.get_height() for bar in left.patches] == [2.0, -3.5, 4.25, 2.0, -3.4, 4.2]  # type: ignore[attr-defined]
    assert [label.get_text() for label in left.get_xticklabels()] == ["w0", "w1", "b"]
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["learned", "true"]  # type: ignore[union-attr]
    (density,) = right.lines
    x, y = np.asarray(density.get_xydata()).T
    assert (x[0], x[-1]) == pytest.approx((residuals.min(), residuals.max()))
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.01), "a density"
    bars = [bar.get_height() * bar.get_width() for bar in right.patches]  # type: ignore[attr-defined]
    assert (len(bars), sum(bars)) == (40, pytest.approx(1))
    assert max(bar.get_height() for bar in right.patches) == pytest.approx(y.max(), rel=0.25)  # type: ignore[attr-defined]


def test_a_perfect_fit_of_unknown_parameters_has_figures_and_a_picture(drawn: list[Figure], tmp_path: Path) -> None:
    residuals = torch.zeros(20)
    sigma = metrics.noise_estimate(residuals)
    assert np.isfinite(metrics.gaussian_nll(residuals, sigma))
    file = figures.fit([0.0, 4.2], None, residuals.numpy(), sigma, tmp_path / "fit.png")
    assert [bar.get_height() for bar in drawn[0].axes[0].patches] == [0.0, 4.2]  # type: ignore[attr-defined]
    with Image.open(file.path, formats=["PNG"]) as image:
        image.load()


def test_every_image_is_under_its_labels_and_errors_are_red(drawn: list[Figure], tmp_path: Path) -> None:
    images = np.arange(11 * 4 * 4, dtype=np.uint8).reshape(11, 4, 4)
    predicted = [*"aabaaaaaaac"]
    image_figures.image_grid(images, predicted, [*"aaaaaaaaaaa"], tmp_path / "grid.png")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.texts] == [f"a\n{label}" for label in predicted]
    assert [index for index, text in enumerate(axes.texts) if text.get_color() == image_figures.WRONG] == [2, 10]
    mosaic = np.asarray(axes.images[0].get_array())
    for index, (text, image) in enumerate(zip(axes.texts, images, strict=True)):
        x, y = text.get_position()
        top, left = int(y) + 1, int(x) - 2
        shown = mosaic[top : top + 4, left : left + 4]
        np.testing.assert_array_equal(shown[..., :3], image[..., None].repeat(3, axis=2), err_msg=str(index))
        assert (shown[..., 3] == 255).all()
    image_figures.image_grid(images, predicted, None, tmp_path / "unlabelled.png")
    assert [(text.get_text(), text.get_color()) for text in drawn[1].axes[0].texts] == [
        (label, image_figures.INK) for label in predicted
    ]


def luminance(red: float, green: float, blue: float) -> float:
    """Relative, of a colour of sRGB, as WCAG defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_words_between_images_can_be_read_on_a_light_and_on_a_dark_page(tmp_path: Path) -> None:
    images = np.zeros((9, 28, 28), np.uint8)
    file = image_figures.image_grid(images, [*"aaaaaaaaa"], [*"abababaab"], tmp_path / "grid.png")
    with Image.open(file.path) as picture:
        assert picture.getchannel("A").getextrema()[0] == 0, "no ground of its own"
    for colour in (image_figures.INK, image_figures.WRONG):
        for ground in ("#ffffff", "#15181c"):
            darker, lighter = sorted(luminance(*to_rgb(each)) for each in (colour, ground))
            assert (lighter + 0.05) / (darker + 0.05) > 3.9, f"{colour} on {ground}"


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    curve = [Epoch(epoch=1, train_loss=0.5, test_loss=0.25)]
    both = [figures.learning_curve(curve, task.CURVES_OF_NUMBERS, tmp_path / name) for name in ("a.png", "b.png")]
    assert both[0].sha256 == both[1].sha256


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
    assert figures.short("City = 上海, São →") == r"City = \u4e0a\u6d77, São →"


@pytest.mark.usefixtures("forgotten")
def test_a_letter_is_taken_from_the_first_font_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = (get_font(findfont(family)).get_charmap() for family in ("DejaVu Sans", "STIXGeneral"))
    letter = chr(min(other.keys() - own.keys()))
    monkeypatch.setattr(lettering, "FAMILIES", ("STIXGeneral", "No Such Font"))
    assert figures.short(letter) == letter
    figure = figures.blank(figsize=(1, 1))
    figure.text(0.5, 0.5, letter)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib, that a glyph is missing
        figure.savefig(io.BytesIO())
