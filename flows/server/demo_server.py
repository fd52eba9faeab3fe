"""A page for trying a model: this process serves it, and answers as ``gradmill.load`` does.

It answers only this machine, and only requests for one of its own names, as ``prefect_server.guard`` checks.
"""

import base64
import calendar
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

import gradmill
from flows.server import prefect_server
from gradmill.rows import InputColumn, name_level
from tasks.data.io import pictures
from tasks.errors import DataError, GradmillError, UsageError
from tasks.serving import runtime
from tasks.store import artifact_paths, model_folder
from tasks.store.artifact_paths import SAMPLE

PAGE = Path(__file__).with_name("demo_page")
MOST_BYTES = 2**26  # of a picture
ANOTHER = "(another)"  # a level that the model has not seen
OURS_ALONE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def load(name: str, number: int | None) -> tuple[gradmill.Model, dict[str, Any]]:
    """The version asked for, or the champion, and what the page must know of it: its input, and sample rows.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    found = model_folder.resolve_version(name, number)
    model, manifest = gradmill.load(name, artifact_paths.root(), found), model_folder.find_manifest(name, found)
    recipe, class_names = manifest.recipe, manifest.dataset.class_names
    folder = artifact_paths.version(name, found)
    rows = runtime.read_sample(model_folder.read_file(folder, SAMPLE), folder / SAMPLE)[recipe.input.name]
    facts: dict[str, Any] = {"name": name, "version": found, "class_names": class_names, "shape": rows.shape[1:]}
    if not model.columns:
        samples = {"samples": base64.b64encode(rows.tobytes()).decode()}
        return model, facts | samples | {"is_dark": bool(rows.mean() < 128)}
    given = dict[str, list[InputColumn]]()
    for column in model.columns.values():
        given.setdefault(column.input_name, []).append(column)
    decoded = [decode_row(given, dict(zip(model.columns, row.tolist(), strict=True))) for row in rows]
    target = recipe.target.name if recipe.target else "prediction"
    fields = [describe_field(name, columns) for name, columns in given.items()]
    return model, facts | {"columns": fields, "target": target, "samples": decoded}


def describe_field(name: str, columns: list[InputColumn]) -> dict[str, Any]:
    """The form field of this name: a number, a boolean, a level, or a date with ``columns`` as parts."""
    parts = {column.part for column in columns}
    if parts == {""}:
        return {"name": name, "kind": columns[0].kind, "levels": [*columns[0].levels, ANOTHER]}
    kind = "date" if "hour" not in parts else "datetime-local" if "month" in parts else "time"
    return {"name": name, "kind": kind, "levels": []}


def decode_row(given: Mapping[str, list[InputColumn]], codes: Mapping[str, float]) -> dict[str, Any]:
    """Turn codes into a row of form fields; a date is the first in its month with these parts, a missing value None."""
    row = dict[str, Any]()
    for name, columns in given.items():
        code = codes[columns[0].name]
        if math.isnan(code):
            row[name] = None
        elif columns[0].part:
            row[name] = _find_moment({column.part: codes[column.name] for column in columns})
        elif columns[0].kind == "category":
            row[name] = (*columns[0].levels, ANOTHER)[min(int(code), len(columns[0].levels))]
        else:
            row[name] = bool(code) if columns[0].kind == "boolean" else float(f"{code:.7g}")
    return row


def _find_moment(parts: Mapping[str, float]) -> str:
    at = {part: int(code) for part, code in parts.items() if math.isfinite(code)}
    hour, year, month = at.get("hour", 0) % 24, at.get("year", 2024), at.get("month", 0) % 12 + 1
    first, _ = calendar.monthrange(year, month)
    day = date(year, month, 1 + (at.get("weekday", first) - first) % 7)
    return " ".join(([day.isoformat()] if "month" in parts else []) + ([f"{hour:02}:00"] if "hour" in parts else []))


def answer_row(model: gradmill.Model, row: Any) -> dict[str, Any]:
    """The prediction for a row that ``Model`` accepts, and each column's contribution to it or to a class.

    Raises:
        ValueError: a value does not fit its column.
    """
    if model.classes:
        answer: dict[str, Any] = {"probabilities": model.predict_proba(row, "average")[0].tolist()}
    else:
        answer = {"prediction": float(model.predict(row, "average")[0])}
    if model.columns:
        try:
            added = model.explain(row, "average")[0]
        except DataError as error:  # an older version may have no weights
            return answer | {"unexplained": error.found}
        best = int(np.argmax(answer.get("probabilities", [0])))
        to = "prediction"
        if model.classes:
            to = f"the score of {name_level(model.classes[best])}"
            added = added[best] if added.ndim == 2 else added
        if len(model.classes) == 2:
            to = f"the log odds of {name_level(model.classes[1])}"
        answer["added"] = {"to": to, "columns": [*model.terms], "values": added.tolist()}
    return answer


def make_server(model: gradmill.Model, described: dict[str, Any]) -> uvicorn.Server:
    """A server of the page, which answers on the sockets that its ``run`` is given."""
    shape = described["shape"]
    row_bytes = MOST_BYTES if model.columns else math.prod(shape)

    def predict(content: bytes) -> Response:
        """Predict one row: a JSON object for a table, the bytes of its pixels for an image."""
        if model.columns:
            row = json.loads(content)
            if not isinstance(row, dict):
                raise UsageError("no object", "one row, by column", "send one row")
        elif len(content) == row_bytes:
            row = np.frombuffer(content, np.uint8).reshape(1, *shape)
        else:
            raise UsageError(f"{len(content)} bytes", f"one image of {shape}", "send one image")
        return Response(json.dumps(answer_row(model, row)), media_type="application/json")

    def read_pixels(picture: bytes) -> Response:
        """Read a picture file as ``gradmill predict`` does, into the bytes of a row of the model's input."""
        if model.columns:
            raise DataError("the model is of a table", "a row of it", "fill in the form")
        return Response(pictures.decode(picture, tuple(shape), "the file")[0].tobytes())

    def describe_model(_: Request) -> Response:
        return Response(json.dumps(described), media_type="application/json")

    app = Starlette(
        routes=[
            Route("/model.json", describe_model),
            Route("/predict", _answer(predict, row_bytes), methods=["POST"]),
            Route("/pixels", _answer(read_pixels, MOST_BYTES), methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
    )
    headers = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}
    headers |= {"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    guarded = prefect_server.guard(app, policy=OURS_ALONE)
    config = uvicorn.Config(guarded, log_level="critical", headers=[*headers.items()], server_header=False)
    return uvicorn.Server(config)


def _answer(compute: Callable[[bytes], Response], most: int) -> Callable[[Request], Awaitable[Response]]:
    """Answer a POST of at most ``most`` bytes; nothing is read from a longer one."""

    async def answer(request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > len(str(most)) or int(length) > most:
            return Response("one row for /predict or one picture for /pixels is expected", 400)
        try:
            return compute(await request.body())
        except (GradmillError, ImportError, ValueError, RecursionError) as error:
            return Response(str(getattr(error, "found", error)), 400)

    return answer
