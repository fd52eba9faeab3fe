"""A service in Python, rows as JSON to a published model's answers: ``MODEL=houses fastapi run serving_rows.py``."""

import os
from typing import Any

import fastapi

import gradmill

app = fastapi.FastAPI()
model = gradmill.load(os.environ["MODEL"])


@app.post("/predict")
def predict(rows: list[dict[str, Any]]) -> list[Any]:
    """A class or a number a row; a value that its column does not take is named, with status 422."""
    try:
        answers: list[Any] = model.predict(rows).tolist()
    except ValueError as error:
        raise fastapi.HTTPException(422, str(error)) from error
    return answers
