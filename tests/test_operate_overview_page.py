"""A name's overview beside its other pages: links to the newest of them, and nothing of users that is not plain text."""

from typing import Any

import pytest
from prefect.client.orchestration import get_client

from flows.evaluate import evaluate
from flows.predict import predict
from prefect_api import post
from tasks.parameters import EvaluateParameters, PredictParameters

NAME = "linear-regression"


def newest(api: str, kind: str) -> dict[str, Any]:
    """The newest page of a kind, as the server has it."""
    wanted = {"artifacts": {"key": {"any_": [f"{NAME}-{kind}"]}}, "sort": "CREATED_DESC"}
    return dict(post(api, "artifacts/filter", wanted)[0])


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
        assert f"[predictions](/artifacts/artifact/{newest(prefect_api, 'predictions')['id']})" in newest(
            prefect_api, "overview"
        )["data"]
    evaluate(EvaluateParameters.model_validate({"name": NAME}))
    page = newest(prefect_api, "overview")["data"]
    assert f"[judgement](/artifacts/artifact/{newest(prefect_api, 'judgement')['id']})" in page
    assert f"[deployment nightly](/deployments/deployment/{deployment})" in page
    with get_client(sync_client=True) as client:
        client.delete_deployment(deployment)
