"""A name's overview beside its other pages: it links to the newest of them; on all what users say is plain text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markdown_it import MarkdownIt
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from candidate import job_document
from flows.evaluate import evaluate
from flows.predict import predict
from flows.server import service
from flows.story import blocks, drifted, overview, predicted
from flows.story.blocks import Page, Section, said
from prefect_api import post
from tasks.batch.plan import Version
from tasks.data.recipe import Column, Columns
from tasks.data.report import ColumnProfile, DataReport, Finding
from tasks.errors import DataError
from tasks.parameters import EvaluateParameters, PredictParameters
from tasks.records import Prediction
from tasks.serving.drift import Histogram
from tasks.serving.task import TASKS
from tasks.store import artifact_paths, locks
from tasks.store.predictions import Job

NAME = "linear-regression"
HOSTILE = "![a](//x.org/a.png) [b](//x.org) <img src=c> _d_ x\\\\|![e](f.png)\n\n# g\r| `h` ```![i](j.png)` & www.x.org"


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
    asked = overview.Asked()
    predict(PredictParameters(name=NAME))
    before = newest(prefect_api, "overview")["updated"]
    with locks.locked(artifact_paths.up_lock(), "up"):
        service.at(prefect_api).write(artifact_paths.service())
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
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.pages_asked().mkdir(parents=True)
    (artifact_paths.pages_asked() / NAME).touch()
    asked = overview.Asked()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        asked.look()
    assert f"{NAME}-overview could not be written" in capsys.readouterr().err
    asked.look()
    assert (artifact_paths.pages_asked() / NAME).exists(), "it is not tried twice a second"
    monkeypatch.setattr(overview, "AGAIN_SECONDS", 0.0)
    overview.Asked().look()
    assert not [*artifact_paths.pages_asked().iterdir()]
    assert "live since" in newest(prefect_api, "overview")["description"]


def elements(page: str) -> set[str]:
    """What a reader of Markdown makes of a page, beside paragraphs, tables and code."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page)
    inline = [child for token in tokens for child in token.children or ()]
    known = {"paragraph", "inline", "text", "text_special", "code_inline", "table", "thead", "tbody", "tr", "th", "td"}
    return {token.type.removesuffix("_open").removesuffix("_close") for token in [*tokens, *inline]} - known


def shown(page: str) -> str:
    """What is to be read on it."""
    inline = [token.children or () for token in MarkdownIt("commonmark").enable("table").parse(page)]
    return " ".join("".join(child.content for child in children) for children in inline if children)


def hostile_job() -> Job:
    histogram = Histogram(edges=(0.5,), counts=(90, 10)).model_dump(mode="json")
    index = {"index": {"label": 0.4}, "maximum": 0.2, "verdict": "drift"}
    more = {"drift": index, "profile": {"label": histogram}, "rows": 12, "shards": [[0, 0, 12]], "rejects": 2}
    more |= {"finished_at": "2026-11-26T03:00:00+00:00", "accuracy": 0.75}
    more |= {"column_counts": {HOSTILE: (9, 1, 0, 0)}, "column_drift": {HOSTILE: 0.5}}
    document = job_document(NAME, status="done") | more
    document["input"]["path"] = f"/in/{HOSTILE.replace('/', '')}"
    return Job.model_validate_json(json.dumps(document))


def hostile_version() -> Version:
    column = Column(name=HOSTILE, kind="category", levels=(HOSTILE, "b"), counts=(1, 1))
    profile = ColumnProfile(name=HOSTILE, levels=(0, 1), counts=(1, 9, 0, 0))
    reference = {"label": Histogram(edges=(0.5,), counts=(10, 90))}
    return Version(TASKS["classification"], [HOSTILE, "b"], reference, Columns(columns=(column,)), (profile,))


def test_nothing_of_users_is_more_than_text_on_a_page_of_predictions(tmp_path: Path) -> None:
    job, version = hostile_job(), hostile_version()
    folder = artifact_paths.predictions("0" * 16)
    folder.mkdir(parents=True)
    (folder / "_job.json").write_text(job.model_dump_json())
    reason = {"source": [HOSTILE], "source_row": [1], "reason": [f"{HOSTILE} is {HOSTILE}"]}
    pq.write_table(pa.table(reason), tmp_path / "_rejects.parquet")
    facts = {"path": tmp_path, "job": "j", "rows": 10, "rejects": 2, "parts": 1, "name": NAME, "version": 1}
    result = Prediction(**facts, model_sha256="0" * 64, provider="CPU", drift=job.drift, seconds=1)
    failed = predicted.failed(NAME, DataError(HOSTILE, HOSTILE, HOSTILE), "s3://mia:secret@x.org/a.csv")
    pages = {
        "labels": drifted.labels(job, version),
        "columns": drifted.columns(job, version),
        "rejects": predicted._rejects(result, version),
        "failed": failed,
        "line": blocks.escaped(drifted.most(job, version)),
        "table": blocks.table((HOSTILE[:1], ""), [(f"`{said(HOSTILE)}`", said(HOSTILE))]),
        "page": blocks.markdown(Page(NAME, said(HOSTILE), (Section("s", (said(HOSTILE),)),))),
    }
    for name, page in pages.items():
        assert elements(page) <= {"heading", "strong"}, name
        assert "[b](//x.org) <img src=c> _d_" in shown(page), name
    assert "secret" not in failed
    assert "`s3://x.org/a.csv`" in failed
    assert "| accuracy 0.75 |" in failed, "of a job from before it had metrics"
    assert "| 10 | 2 |" in failed, "rows that were predicted, and rejects"


def test_nothing_of_users_is_more_than_text_on_the_page_of_their_data() -> None:
    finding = Finding(severity="warning", rule="constant", found=HOSTILE)
    page = DataReport(name=NAME, summary="", findings=(finding,), classes={HOSTILE: 3}).page()
    assert elements(page) <= {"heading", "strong", "bullet_list", "list_item"}
    assert shown(page).count("[b](//x.org) <img src=c> _d_") == 2
