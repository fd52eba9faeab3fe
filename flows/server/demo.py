"""A page on which a person tries a model: this process serves it and answers by the published file.

Only to this machine, and to whoever calls it by its own name, as ``prefect_server.guard`` has it.
"""

import base64
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flows.server import prefect_server
from tasks.data.io import pictures
from tasks.data.recipe import Recipe
from tasks.errors import DataError, GradmillError, UsageError
from tasks.parameters import Device
from tasks.serving import runtime
from tasks.store import artifact_paths, reading
from tasks.store.artifact_paths import ONNX, SAMPLE

PAGE = Path(__file__).with_name("demo_page")
MOST_BYTES = 2**26  # of a picture
OURS_ALONE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def describe(recipe: Recipe, class_names: Sequence[str], sample: bytes, path: Path | str = SAMPLE) -> dict[str, Any]:
    """What a page must know of a model: its input, and rows of ``sample``, which is ``sample.npz``, to begin with."""
    rows = runtime.read_sample(sample, path)[recipe.input.name]
    facts: dict[str, Any] = {
        "dtype": str(rows.dtype),
        "shape": rows.shape[1:],
        "class_names": class_names,
        "samples": base64.b64encode(rows.tobytes()).decode(),
    }
    return facts | recipe.describe_rows(rows)


def load(name: str, number: int | None) -> tuple[bytes, dict[str, Any]]:
    """The ``model.onnx`` of the version asked for, or of the champion, and what a page must know of it.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    found, model = reading.load(name, number)
    folder, manifest = artifact_paths.version(name, found), reading.manifest(name, found)
    runtime.open_session(model, Device.CPU, folder / ONNX)  # names the file where it cannot be run
    sample = reading.read_file(folder, SAMPLE)
    described = describe(manifest.recipe, manifest.dataset.class_names, sample, folder / SAMPLE)
    return model, {"name": name, "version": found, **described}


def make_server(model: bytes, described: dict[str, Any]) -> uvicorn.Server:
    """A server of the page, which answers at the sockets that its ``run`` is given."""
    session, dtype, shape = runtime.open_session(model, Device.CPU), np.dtype(described["dtype"]), described["shape"]
    row_bytes = dtype.itemsize * math.prod(shape)

    def predict(row: bytes) -> Response:
        """Every output as a list; what JSON has no number for is the text that JavaScript makes one of, as NaN."""
        if len(row) != row_bytes:
            raise UsageError(f"{len(row)} bytes", f"one row of {dtype} {shape}", "send one row")
        answers = runtime.run_model(session, np.frombuffer(row, dtype).reshape(1, *shape))
        lists = {
            name: [each if math.isfinite(each) else json.dumps(each) for each in found.reshape(-1).tolist()]
            for name, found in answers.items()
        }
        return Response(json.dumps(lists), media_type="application/json")

    def read_pixels(picture: bytes) -> Response:
        """A picture file as ``gradmill predict`` reads it: the bytes of a row of the model's input."""
        if "columns" in described:
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
    guarded = prefect_server.guard(app, policy=OURS_ALONE, script=b"")
    config = uvicorn.Config(guarded, log_level="critical", headers=[*headers.items()], server_header=False)
    return uvicorn.Server(config)


def _answer(compute: Callable[[bytes], Response], most: int) -> Callable[[Request], Awaitable[Response]]:
    """Answer a POST of ``most`` bytes at most; nothing is read of a longer one."""

    async def answer(request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or len(length) > len(str(most)) or int(length) > most:
            return Response("one row for /predict or one picture for /pixels is expected", 400)
        try:
            return compute(await request.body())
        except (GradmillError, ImportError) as error:
            return Response(str(getattr(error, "found", error)), 400)

    return answer
