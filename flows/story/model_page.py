"""A version as one page for a browser: its own ``index.html`` or, of an older one, a page made now."""

from pathlib import Path

from tasks.data.report import DataReport
from tasks.serving.contract import ModelMetadata
from tasks.store import artifact_paths, atomic, reading
from tasks.store.artifact_paths import DATA_REPORT, METADATA, ONNX, PAGE


def page(name: str, version: int | None = None) -> Path:
    """Where the page of a version is, or of the champion; that of an older version is made outside of the store.

    Raises:
        UsageError: there is no such model or version.
        DataError: the version is damaged.
    """
    return reading.with_version(name, version, lambda number: _page(name, number))


def _page(name: str, number: int) -> Path:
    folder, manifest = artifact_paths.version(name, number), reading.manifest(name, number)
    if PAGE in manifest.files:
        reading.read_file(folder, PAGE)
        return folder / PAGE
    from tasks.store.model_page import PICTURES, model_page

    wanted = {METADATA, DATA_REPORT, *PICTURES} & manifest.files.keys()
    contents = {filename: reading.read_file(folder, filename) for filename in wanted}
    report = contents.get(DATA_REPORT)
    text = model_page(
        manifest.model_dump(mode="json") | {"model_sha256": manifest.files[ONNX]},
        ModelMetadata.parse(contents[METADATA], folder / METADATA),
        contents,
        DataReport.parse(report, folder / DATA_REPORT) if report else None,
        is_beside=False,
    )
    path = artifact_paths.page(name, number)
    atomic.write_bytes(path, text.encode())
    return path
