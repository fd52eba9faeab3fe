"""What a search found is used by ``retrain --tuned``: newest, over a champion's settings, under what is given now."""

import json
from typing import Any

import pytest

import flows.cli.app
from candidate import Candidate
from flows.cli import schedule
from tasks.errors import DataError, UsageError
from tasks.parameters import Found, RetrainParameters
from tasks.store import artifact_paths, housekeeping, own_data, reading, tuned
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Tuned

NAME = "linear-regression"
LINEAR = {"model": NAME}


def found(name: str = NAME, model: str = NAME, run: str = "a-search", dataset: str = "", **settings: Any) -> Tuned:
    """Keep such settings as those that a search has found."""
    result = Tuned(
        model=model, dataset=dataset, dataset_digest="0" * 64, settings=settings, validation_losses=(0.1,),
        default_settings={}, default_losses=(0.2,), num_trials=1, num_validation=100, seed=42, run=run,
    )  # fmt: skip
    artifact_paths.tuned(name).parent.mkdir(parents=True, exist_ok=True)
    result.write(artifact_paths.tuned(name))
    return result


def resolved(training: dict[str, Any], **more: Any) -> RetrainParameters:
    return tuned.take_found(RetrainParameters.model_validate({"training": LINEAR | training, "tuned": True, **more}))


def test_given_settings_win_over_found_ones_and_these_over_defaults() -> None:
    found(lr=0.5, batch_size=32, schedule="cosine")
    parameters = resolved({"lr": 0.02, "schedule": None, "batch_size": None})  # a form sends nothing as null
    asked = parameters.training
    assert (asked.lr, asked.batch_size, asked.schedule, asked.num_epochs) == (0.02, 32, "cosine", 3)
    assert parameters.found == Found(run="a-search", fields=("batch_size", "schedule"))


def test_the_epochs_that_huber_takes_by_default_are_not_given() -> None:
    found(num_epochs=15)
    assert resolved({"loss": "huber"}).training.num_epochs == 15
    assert resolved({"loss": "huber", "num_epochs": 5}).training.num_epochs == 5


def test_without_being_asked_for_nothing_found_is_taken() -> None:
    found(lr=0.5)
    parameters = RetrainParameters.model_validate({"training": LINEAR})
    assert tuned.take_found(parameters) is parameters


def test_every_field_that_a_search_may_find_is_left_out_of_the_form_which_would_send_it() -> None:
    parameters = RetrainParameters.model_validate(
        {"name": "own", "data": {"source": "/a.csv", "target": "price"}, "training": LINEAR, "tuned": True}
    )
    found("own", dataset="own", lr=0.5, batch_size=32, num_epochs=4, weight_decay=0.25, loss="huber", schedule="step")
    asked = tuned.take_found(parameters).training
    assert (asked.lr, asked.batch_size, asked.num_epochs, asked.weight_decay) == (
        0.5,
        32,
        4,
        0.25,
    )
    assert (asked.loss, asked.schedule, asked.defaults) == ("huber", "step", "data")


@pytest.mark.parametrize(
    ("written", "code", "said"),
    [
        (None, 2, "no settings were found for linear-regression yet"),
        ({"model": "softmax-regression"}, 2, "settings found for softmax-regression on synthetic-linear"),
        ({"dataset": "houses"}, 2, "settings found for linear-regression on houses"),
        ({"lr": -1.0}, 4, "lr: Input should be greater than 0"),
        ({"dropout": 0.5}, 4, "dropout is for softmax regression"),
        ({"nonsense": 1}, 4, "nonsense: Extra inputs are not permitted"),
    ],
)
def test_settings_that_cannot_be_used_are_said_before_a_server_starts(
    written: dict[str, Any] | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if written is not None:
        found(**written)
    assert flows.cli.app.run(["retrain", NAME, "--tuned"]) == code
    message = capsys.readouterr().err.splitlines()
    assert len(message) == 3
    assert said in message[0]
    assert f"gradmill tune {NAME}" in message[2]


def test_a_damaged_document_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found(lr=0.5)
    path = artifact_paths.tuned(NAME)
    path.write_text(path.read_text().replace("0.5", "NaN"))
    assert flows.cli.app.run(["retrain", NAME, "--tuned"]) == 4
    assert str(path) in capsys.readouterr().err


def kept(candidate: Candidate, name: str, tuned_too: bool = False, **training: Any) -> None:
    """A version under a name of its own whose run was asked so."""
    asked = candidate.parameters.training.given | training
    document = {"name": name, "training": asked, "tuned": tuned_too}
    candidate.parameters = tuned.take_found(RetrainParameters.model_validate(document))
    candidate.publish()


def repeated(name: str, **given: Any) -> RetrainParameters:
    """What ``gradmill retrain NAME`` asks for, as the run takes it."""
    document = json.loads(json.dumps(own_data.again(name, given)))  # as a deployment keeps it
    return tuned.take_found(RetrainParameters.model_validate(document))


@pytest.fixture
def candidate(candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """One that is left as it was."""
    monkeypatch.setattr(candidates[0], "parameters", candidates[0].parameters)
    return candidates[0]


def test_a_kept_name_takes_found_settings_over_its_champions_and_goes_on_with_the_newest(candidate: Candidate) -> None:
    kept(candidate, "mine", lr=0.02, batch_size=16)
    with pytest.raises(UsageError, match="no settings were found for mine"):
        repeated("mine", tuned=True)
    found("mine", lr=0.5)
    first = repeated("mine", tuned=True)
    assert (first.training.lr, first.training.batch_size) == (0.5, 16)
    assert repeated("mine").training.lr == 0.02, "unless asked for, the champion's settings are repeated"


def test_a_name_that_was_tuned_goes_on_so_until_told_otherwise(candidate: Candidate) -> None:
    found("mine", run="first", lr=0.5, num_epochs=4)
    kept(candidate, "mine", tuned_too=True, batch_size=16, num_epochs=3)
    version = reading.manifest("mine", 1).parameters.model_dump()
    assert (version["tuned"], version["training"]["lr"]) == (True, 0.5), "what it was trained with"
    assert version["found"] == {"run": "first", "fields": ["lr"]}
    found("mine", run="second", lr=0.25, num_epochs=4, schedule="cosine")
    again = repeated("mine")
    assert again.training.lr == 0.25
    assert again.training.schedule == "cosine", "a default of the champion was not given"
    assert again.training.batch_size == 16
    assert repeated("mine", training={"lr": 0.1}).training.lr == 0.1
    off = repeated("mine", tuned=False)
    assert (off.training.given.get("lr"), off.training.batch_size, off.found) == (None, 16, None)
    assert own_data.again("mine", {"tuned": False}, with_found=True)["training"]["lr"] == 0.5, "a search starts there"
    asked = schedule.ask_for(schedule.find_target("mine"), None, {"cron": "0 3 * * *"}, {}).parameters
    found("mine", run="third", lr=0.125)
    assert tuned.take_found(RetrainParameters.model_validate(asked)).training.lr == 0.125, "every night the newest"


def test_a_penalty_of_none_that_was_given_for_own_data_is_no_default() -> None:
    """Own data decide where nothing is given."""
    asked = RetrainParameters.model_validate(
        {"name": "own", "data": {"source": "/a.csv", "target": "price"}, "training": LINEAR | {"weight_decay": 0.0}}
    )
    assert asked.training.given["weight_decay"] == 0.0
    assert "lr" not in asked.training.given


def test_a_name_with_found_settings_and_no_version_is_in_nobodys_way(capsys: pytest.CaptureFixture[str]) -> None:
    found("mine", lr=0.5)
    for command, code in {
        ("models",): 0, ("models", "mine"): 2, ("history",): 0, ("verify", "mine"): 2, ("maintain",): 0,
        ("retrain", "mine"): 2, ("retrain", "mine", "--tuned"): 2, ("mirror", "mine", "elsewhere"): 2,
    }.items():  # fmt: skip
        assert flows.cli.app.run([*command]) == code
        assert "Traceback" not in capsys.readouterr().err
    assert not artifact_paths.models().exists(), "Triton does not start on a model's folder without a version"


def test_searches_that_names_or_kept_versions_stand_on_are_evidence(candidate: Candidate) -> None:
    for run in ("first", "second", "third"):
        RunFolder.open(run, {})
    found("mine", run="first", lr=0.5)
    kept(candidate, "mine", tuned_too=True)
    found("mine", run="second", lr=0.25)
    assert {"first", "second"} <= housekeeping.evidence()
    assert "third" not in housekeeping.evidence()
    artifact_paths.tuned("mine").write_text("{}")
    with pytest.raises(DataError, match=r"mine\.json"):
        housekeeping.evidence()
