"""A name's overview on the server: it links to the newest of its other pages; beside ``up`` only that writes it."""

from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.evaluate import evaluate
from flows.predict import predict
from flows.server import connection, up
from prefect_api import post
from tasks.parameters import EvaluateParameters, PredictParameters
from tasks.store import artifact_paths, locks

NAME = "linear-regression"


def newest(api: str, kind: str) -> dict[str, Any]:
    """The newest page of a kind, as the server has it."""
    wanted = {"artifacts": {"key": {"any_": [f"{NAME}-{kind}"]}}, "sort": "CREATED_DESC"}
    return dict(post(api, "artifacts/filter", wanted)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("two_versions")
def test_the_overview_links_to_the_page_of_the_last_prediction_and_judgement_and_to_the_deployment(
    prefect_api: str,
) -> None:
    with get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("retrain")
        tags = ["gradmill", f"model:{NAME}"]
        deployment = client.create_deployment(flow_id=flow, name="nightly", tags=tags, entrypoint="flows.retrain")
    for _ in range(2):
        predict(PredictParameters(name=NAME))
        assert (
            f"[predictions](/artifacts/artifact/{newest(prefect_api, 'predictions')['id']})"
            in newest(prefect_api, "overview")["data"]
        )
    evaluate(EvaluateParameters.model_validate({"name": NAME}))
    page = newest(prefect_api, "overview")["data"]
    assert f"[judgement](/artifacts/artifact/{newest(prefect_api, 'judgement')['id']})" in page
    assert f"[deployment nightly](/deployments/deployment/{deployment})" in page
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment)


@pytest.mark.usefixtures("two_versions")
def test_beside_up_a_run_leaves_the_page_to_it_and_never_to_one_that_is_dead(prefect_api: str) -> None:
    artifact_paths.prefect_home().mkdir(exist_ok=True)
    artifact_paths.pages_asked().mkdir()
    asked = up.Watch()
    predict(PredictParameters(name=NAME))
    before = newest(prefect_api, "overview")["updated"]
    with locks.locked(artifact_paths.up_lock(), "up"):
        connection.make_service(prefect_api).write(artifact_paths.service())
        predict(PredictParameters(name=NAME))
        assert newest(prefect_api, "overview")["updated"] == before
        asked.look()
        newer = newest(prefect_api, "overview")["updated"]
        assert newer > before
        asked.look()
        assert newest(prefect_api, "overview")["updated"] == newer, "each is written once"
    predict(PredictParameters(name=NAME))
    assert newest(prefect_api, "overview")["updated"] > newer


@pytest.mark.slow
@pytest.mark.usefixtures("two_versions")
def test_a_page_that_cannot_be_written_is_asked_for_still_and_tried_again_later(
    prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.pages_asked().mkdir(parents=True)
    (artifact_paths.pages_asked() / NAME).touch()
    asked = up.Watch()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        asked.look()
    assert f"{NAME}-overview could not be written" in capsys.readouterr().err
    asked.look()
    assert (artifact_paths.pages_asked() / NAME).exists(), "it is not tried twice a second"
    up.Watch().look()
    assert not [*artifact_paths.pages_asked().iterdir()]
    assert "live since" in newest(prefect_api, "overview")["description"]
