"""Every fenced block of README and docs/ is run or parsed as far as it can be: one that no test knows fails here."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import served_images
from conftest import REPOSITORY
from fenced_blocks import PAGES, Block, blocks, in_node
from tasks.machine.settings import Settings
from tasks.store import artifact_paths

BLOCKS = [block for page in PAGES for block in blocks(page)]
TOLD = "\n".join(page.read_text() for page in PAGES)

# Blocks with these words are not run here but by what is named.
ELSEWHERE = {
    "events_subscriber": "tests/test_run_story.py follows a model with it",
    "new Uint8Array(784), [1, 28, 28]); // one black picture\nconst": "tests/test_docs_consumers.py, in Node",
    "Block.load": "tests/test_operate_alerts.py sends a message with it",
    "<script type": "tests/test_docs_consumers.py, in Chromium",
    "/v2/models/": "tests/test_serve_triton.py, against a real tritonserver",
    "time.sleep(1)": "tests/test_docs_consumers.py, while the champion changes",
    "await setTimeout(1000)": "tests/test_docs_consumers.py, while the champion changes",
    "model.explain(row)": "tests/test_python.py, with a model of houses",
    "model.is_current()": "the same",
    'dataset("predicted")': "tests/test_docs_typed.py types it",
}
# Blocks that begin so are no commands.
LISTINGS = {
    "onnxruntime ok: ": "what gradmill doctor says of one machine: tests/test_doctor_findings.py",
    "champion.json ": "the files of a model: see below",
    "flows/ ": "the folders of this repository: see below",
}
# Programs that are not ours.
PROGRAMS = {
    "docker": "tests/test_docker_stack.py and tests/test_docker_pools.py run those of docs/containers.md",
    "(umask": "the same",
    "install": "the same",
    "apt-get": "needs a Debian mirror",
    "15": "a line of a crontab",
    "prefect": "tests/test_docker_pools.py and tests/test_run_story.py",
    "openssl": "tests/test_docs_typed.py makes keys with it",
    "model_signing": "tests/test_cli_store.py signs and verifies with it",
    "pip": "needs a package registry",
    "pg_dump": "needs a PostgreSQL of yours",
    "pg_restore": "the same",
    "tritonserver": "tests/test_serve_triton.py",
    "export": "its variables: see below",
    "make": "its targets: see below",
    "gradmill": "tests/test_docs_typed.py types them",
}


# What tests/test_docs_typed.py and tests/test_store_restic.py type, and tests/test_docs_recipes.py applies.
TYPED_OR_APPLIED = {
    ("sh", "first-hour.md"),
    ("text", "first-hour.md"),
    ("sh", "backup.md"),
    ("diff", "contributing.md"),
}


def commands(block: Block) -> Iterator[str]:
    """The lines of a block of commands, without their comments."""
    for line in block.text.splitlines():
        if typed := re.sub(r"(?:^|\s+)#\s.*", "", line).strip():
            yield typed


def are_commands(block: Block) -> bool:
    return block.language == "" and not block.text.startswith(tuple(LISTINGS))


def program(line: str) -> str:
    """What it starts, whatever is set before it."""
    return next(word for word in line.split() if not re.match(r"[A-Z_]+=", word))


def test_what_is_run_elsewhere_is_one_block_each() -> None:
    for words in ELSEWHERE:
        assert sum(words in block.text for block in BLOCKS) == 1, words
    for words in LISTINGS:
        assert sum(block.text.startswith(words) for block in BLOCKS) == 1, words


HERE = [block for block in BLOCKS if not any(words in block.text for words in ELSEWHERE)]


@pytest.mark.parametrize("block", HERE, ids=str)
def test_every_block_is_run_or_parsed(block: Block, artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    if block.language in ("python", "js"):
        served_images.write(artifacts / "models")
        monkeypatch.chdir(artifacts.parent)
        command = [sys.executable, "-c", block.text] if block.language == "python" else in_node(block.text)
        subprocess.run(command, check=True, timeout=600)
    elif block.language in parse:
        parse[block.language](block.text)
    elif block.language == "mermaid":
        stages = set(re.findall(r"--> ([a-z]+)", block.text))
        assert len([stage for stage in stages if (REPOSITORY / "tasks" / f"{stage}.py").is_file()]) == len(stages) == 7
    elif block.language:  # of another one no test knows
        assert (block.language, block.page.name) in TYPED_OR_APPLIED
    elif are_commands(block):
        assert {program(line) for line in commands(block)} <= set(PROGRAMS)


def test_every_target_of_make_is_there() -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (REPOSITORY / "Makefile").read_text()))
    named = set(re.findall(r"`make ([a-z]+)", TOLD)) | {
        line.split()[1] for block in BLOCKS if are_commands(block) for line in commands(block) if line[:5] == "make "
    }
    assert named
    assert named <= targets


def test_every_environment_variable_is_read_somewhere() -> None:
    import prefect.settings

    known = {f"GRADMILL_{field}".upper() for field in Settings.model_fields}
    for folder in ("flows", "docker", "tests"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".json") and path.name != Path(__file__).name:
                known |= set(re.findall(r"GRADMILL_[A-Z_]+", path.read_text()))
    assert set(re.findall(r"GRADMILL_[A-Z_]+", TOLD)) <= known
    assert not [name for name in re.findall(r"PREFECT_[A-Z_]+", TOLD) if not hasattr(prefect.settings, name)]


def test_the_files_of_a_model_are_those_of_a_real_one(two_versions: None) -> None:
    (block,) = [each for each in BLOCKS if each.text.startswith("champion.json ")]
    model = artifact_paths.version("linear-regression", 2)
    there = {path.name for folder in (model, model.parent) for path in folder.iterdir()}
    assert set(re.findall(r"\b[\w-]+\.(?:json|pbtxt|onnx|npz|md|html)\b|SHA256SUMS", block.text)) <= there


def test_the_folders_of_the_repository_are_there() -> None:
    (block,) = [each for each in BLOCKS if each.text.startswith("flows/ ")]
    top = Path()
    for line in block.text.splitlines():
        named = re.findall(r"(?:^| {2,})([\w-]+/|\w+\.py)(?= |$)", line)
        if not line.startswith(" "):
            top = REPOSITORY / named[0]
            assert top.is_dir(), top
        else:
            assert named or "  judge.py" in line, line
            assert all((top / name).exists() for name in named), line
