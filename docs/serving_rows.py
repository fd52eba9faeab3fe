"""A service in Python: raw rows as JSON on stdin, answers of the table's model in this folder on stdout."""

import json
import sys

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
columns = json.loads(session.get_modelmeta().custom_metadata_map["columns"])
codes = {column["name"]: {level: code for code, level in enumerate(column["levels"])} for column in columns}


def feature(row: dict[str, object], name: str, kind: str) -> object:
    """A number as it is, true as 1, a level as its code; NaN is missing, and -1 an unknown level."""
    value = row.get(name)
    if value is None:
        return np.nan
    if kind != "category":
        return value
    level = value if isinstance(value, str) else str(value).removesuffix(".0").lower()  # 7.0 is level 7, True is true
    return codes[name].get(level, -1)


rows = json.load(sys.stdin)
features = np.array([[feature(row, each["name"], each["kind"]) for each in columns] for row in rows], np.float32)
answers = session.run(None, {"features": features})
names = [output.name for output in session.get_outputs()]
json.dump({name: answer.tolist() for name, answer in zip(names, answers, strict=True)}, sys.stdout)
