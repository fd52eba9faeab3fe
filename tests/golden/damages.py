"""What harm can come to a store of two versions: each takes the folder of a case in which ``artifacts/`` lies."""
# ruff: noqa: E501  (a case is a line)

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Damage = Callable[[Path], object]
MODEL = "artifacts/models/m"


def writable(folder: Path, name: str) -> Path:
    """A file that can be written; names may have a ``*``."""
    path = next(iter(sorted(folder.glob(name))), folder / name)
    for each in (path.parent, path):
        if each.exists():
            each.chmod(each.stat().st_mode | 0o700)
    return path


def write(name: str, content: bytes) -> Damage:
    """Other content."""
    return lambda folder: writable(folder, name).write_bytes(content)


def remove(name: str) -> Damage:
    """No such files or folders."""

    def damage(folder: Path) -> None:
        for path in folder.glob(name):
            writable(folder, str(path.relative_to(folder)))
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def flip(name: str, at: int = -1) -> Damage:
    """One bit is another."""

    def damage(folder: Path) -> None:
        path = writable(folder, name)
        content = bytearray(path.read_bytes())
        content[at] ^= 0x40
        path.write_bytes(content)

    return damage


def edit(name: str, change: Callable[[Any], Any], seal: str = "") -> Damage:
    """A document with other values; with ``seal`` all digests of that version and the pointer are made to fit."""

    def damage(folder: Path) -> None:
        path = writable(folder, name)
        path.write_text(json.dumps(change(json.loads(path.read_bytes()))))
        if seal:
            _seal(folder, seal)

    return damage


def _seal(folder: Path, version: str) -> None:
    files = {path.name: path for path in (folder / MODEL / version).iterdir()}
    manifest = json.loads(files["manifest.json"].read_bytes())
    if isinstance(manifest, dict):
        manifest["files"] = {name: _sha(path) for name, path in files.items() if name in manifest.get("files", {})}
        files["manifest.json"].write_text(json.dumps(manifest))
    sums = writable(folder, f"{MODEL}/{version}/SHA256SUMS")
    sums.write_text("".join(f"{_sha(files[name])}  {name}\n" for name in sorted(files) if name != "SHA256SUMS"))
    pointer = folder / MODEL / "champion.json"
    digests = {"model_sha256": _sha(files["model.onnx"]), "manifest_sha256": _sha(files["manifest.json"])}
    pointer.write_text(json.dumps(json.loads(pointer.read_bytes()) | digests))


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def become_fifo(name: str) -> Damage:
    """A FIFO in the place of a file."""

    def damage(folder: Path) -> None:
        path = writable(folder, name)
        path.unlink()
        os.mkfifo(path)

    return damage


def move(folder: Path) -> None:
    """The whole store lies elsewhere, and a link to nowhere in it."""
    (folder / "artifacts").rename(folder / "moved")
    (folder / "artifacts").symlink_to("moved")
    (folder / "moved" / "models" / "link").symlink_to("nowhere")


def _without(*names: str) -> Callable[[Any], Any]:
    def change(document: Any) -> Any:
        inner = document
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        return document

    return change


pointer = partial(edit, f"{MODEL}/champion.json")
manifest = partial(edit, f"{MODEL}/2/manifest.json")
DAMAGES: dict[str, Damage] = {
    "none": lambda folder: None,
    "pointer-empty": write(f"{MODEL}/champion.json", b""),
    "pointer-garbage": write(f"{MODEL}/champion.json", b"\xff\0{"),
    "pointer-gone": remove(f"{MODEL}/champion.json"),
    "pointer-to-no-version": pointer(lambda it: it | {"version": 99}),
    "pointer-other-digest": pointer(lambda it: it | {"model_sha256": "0" * 64}),
    "pointer-held-large": pointer(lambda it: it | {"held": [10**22]}),
    "model-flipped": flip(f"{MODEL}/2/model.onnx", 300),
    "model-fifo": become_fifo(f"{MODEL}/2/model.onnx"),
    "manifest-cut": write(f"{MODEL}/2/manifest.json", b'{"schema_version": 1, "na'),
    "manifest-of-list": manifest(lambda it: [it]),
    "manifest-no-metrics": manifest(_without("metrics"), "2"),
    "manifest-nested": write(f"{MODEL}/2/manifest.json", b"[" * 100_000),
    "manifest-other-columns": manifest(lambda it: it | {"recipe": it["recipe"] | {"columns": it["recipe"]["columns"][1:]}}, "2"),
    "metadata-other": edit(f"{MODEL}/2/metadata.json", lambda it: it | {"inputs": []}, "2"),
    "sample-flipped": flip(f"{MODEL}/2/sample.npz", 200),
    "sums-gone": remove(f"{MODEL}/2/SHA256SUMS"),
    "version-gone": remove(f"{MODEL}/2"),
    "version-before-gone": remove(f"{MODEL}/1"),
    "staging-left": lambda folder: shutil.copytree(folder / MODEL / "2", folder / MODEL / ".staging-3"),
    "triton-other": write(f"{MODEL}/config.pbtxt", b"nothing"),
    "journal-garbage": write(f"{MODEL}/history.jsonl", b"garbage\n{}\n"),
    "rows-flipped": flip("artifacts/datasets/m/*.rows"),
    "rows-gone": remove("artifacts/datasets/m/*.rows"),
    "split-flipped": lambda folder: [flip(f"artifacts/datasets/m/{path.name}")(folder) for path in (folder / "artifacts/datasets/m").glob("test.*")],
    "splits-gone": remove("artifacts/datasets/m/t*.safetensors"),
    "source-garbage": write("artifacts/datasets/m/source.json", b"[1"),
    "look-garbage": write("artifacts/datasets/m/look.json", b"[1"),
    "runs-garbage": write("artifacts/runs/*/run.json", b"\xff"),
    "job-garbage": write("out/_job.json", b"{}"),
    "moved": move,
}  # fmt: skip
