"""A search for settings beside as many trainings with the book's settings, and what it is worth."""

import statistics
from functools import partial

from benchmarks.measure import Checkout, Report, Sample, Setup, Side, at_least, at_most, make_side

RETRAIN = ["retrain", "softmax-regression", "--device", "cpu", "--force", "--no-publish"]
SEEDS = range(5)
ROUNDS = 2
WINNER, ACCURACY = "the winner's test accuracy", 0.8440


def bench(setup: Setup) -> Report:
    """Search with 64 trials and train in turns; 8 trials if it is to be quick."""
    trials = 8 if setup.quick else 64
    works = {}
    for checkout in setup.checkouts:
        works[f"{checkout.name}, one training"] = partial(train, checkout)
        works[f"{checkout.name}, a search of {trials} trials"] = partial(search, checkout, trials)
    sides = setup.measure(works, "s", ROUNDS)
    searched, one = sides[f"ours, a search of {trials} trials"], sides["ours, one training"]
    winners = {f"{WINNER}, {each.name}": _measure_winner(each) for each in setup.checkouts}
    ratios = [
        at_most(f"a search over {trials} trainings", searched.best / one.best / trials, 0.5),
        at_most(f"a search over {trials} trainings, medians", searched.median / one.median / trials, 0.5),
        at_least(WINNER, winners[f"{WINNER}, ours"].best, ACCURACY),
    ]
    return setup.report("tune", sides | winners, ratios, trials=trials)


def train(checkout: Checkout) -> Sample:
    """The stage ``train`` with the book's settings, in a process that has trained before."""
    command = [*RETRAIN, "--no-tuned"]
    return Sample(checkout.gradmill(command, command)[-1].seconds_of("train"))


def search(checkout: Checkout, trials: int) -> Sample:
    """The stage ``tune``, from its start, in a process that has trained before."""
    command = ["tune", "softmax-regression", "--trials", str(trials), "--device", "cpu", "--force"]
    return Sample(checkout.gradmill([*RETRAIN, "--no-tuned"], command)[-1].seconds["tune"])


def _measure_winner(checkout: Checkout) -> Side:
    """The accuracy on the test split, of five seeds, with what the search has found."""
    runs = checkout.gradmill(*([*RETRAIN, "--tuned", "--seed", str(seed)] for seed in SEEDS))
    samples = [Sample(run.stages["evaluate"]["metrics"]["test_accuracy"], "best: mean of five seeds") for run in runs]
    return make_side(f"{WINNER}, {checkout.name}", "", samples, statistics.fmean)
