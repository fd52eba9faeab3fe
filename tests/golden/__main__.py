"""``python tests/golden [check|record] [--tree PATH] [--only PATTERN] [--quick]``: does a tree answer as recorded?

``check`` prints what differs and is not listed in differences.toml with its reason, and ends with exit code 1 if
anything does. ``record`` writes the answers anew: of all cases, or of those that ``--only`` names.
"""

import argparse
import fnmatch
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

from golden import cases, forking, inputs, observing  # noqa: E402

ANSWERS, LISTED = HERE / "answers", HERE / "differences.toml"
QUICK = 4  # every so many cases
Answers = dict[str, dict[str, Any]]


class Corpus:
    """Runs cases of one tree, several side by side, in folders that are removed afterwards."""

    def __init__(self, tree: Path, scratch: Path, jobs: int, keep: bool) -> None:
        self.tree, self.scratch, self.keep = tree, scratch, keep
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "GRADMILL"))
        }
        environment |= {"OMP_NUM_THREADS": "1", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "COLUMNS": "100"}
        self.server = forking.PrefectServer(scratch / "prefect")
        self.forks: SimpleQueue[forking.Forks] = SimpleQueue()
        self._started = [forking.Forks(tree, environment | self.server.environment) for _ in range(jobs)]
        for each in self._started:
            self.forks.put(each)
        self.server.wait()
        self._bases: dict[str, Path] = {}
        self._turns = {name: threading.Lock() for name in cases.BASES}

    def close(self) -> None:
        """End what was started."""
        for each in self._started:
            each.stop()
        self.server.stop()

    def run(self, name: str) -> dict[str, Any]:
        """What a case is answered, step by step, and what then lies in its store; or why that cannot be told."""
        try:
            return self._run(name, cases.CASES[name])
        except Exception as error:
            return {"0 the corpus itself": {"exit": 1, "failed": f"{type(error).__name__}: {error}"}}

    def _run(self, name: str, case: cases.Case) -> dict[str, Any]:
        base = self._base(case.base) if case.base else None
        folder = self.scratch / "cases" / name
        if base:
            shutil.copytree(base, folder, symlinks=True)
        folder.mkdir(parents=True, exist_ok=True)
        answers = self._steps(folder, case.steps, observing.Observer(folder, self.tree, self.scratch), base is not None)
        if not self.keep:
            shutil.rmtree(folder)
        return answers

    def _base(self, name: str) -> Path:
        """A store that several cases begin with, made once."""
        with self._turns[name]:
            if name not in self._bases:
                folder = self.scratch / "bases" / name
                folder.mkdir(parents=True)
                observer = observing.Observer(folder, self.tree, self.scratch)
                self._steps(folder, cases.BASES[name], observer, False)
                self._bases[name] = folder
            return self._bases[name]

    def _steps(
        self, folder: Path, steps: tuple[cases.Step, ...], observer: observing.Observer, has_base: bool
    ) -> dict[str, Any]:
        models = folder / "artifacts" / "models"
        known = {str(path.relative_to(models)) for path in models.glob("*/[0-9]*")} if has_base else set()
        answers: dict[str, Any] = {}
        for number, step in enumerate(steps):
            if isinstance(step, str):
                if not step.startswith("then ") or not any(each["exit"] for each in answers.values()):
                    command = step.removeprefix("then ")
                    answers[f"{number} {command}"] = observer.of_command(command, self._command(command, folder))
            elif callable(step):
                step(folder)
            else:
                inputs.write_files(folder, step, age=number)
        return answers | observer.of_store(known)

    def _command(self, step: str, folder: Path) -> forking.Done:
        arguments = shlex.split(step.removeprefix("text "))
        arguments += [] if step.startswith("text ") else ["--json"]
        environment = {"GRADMILL_ARTIFACTS": str(folder / "artifacts")}
        if (mnist := self.scratch / "fashion-mnist").exists():
            environment["GRADMILL_FASHION_MNIST_DIR"] = str(mnist)
        outputs = Path(tempfile.mkdtemp(dir=self.scratch))
        forks = self.forks.get()
        try:
            return forks.run(arguments, folder, environment, outputs)
        finally:
            self.forks.put(forks)

    def link_fashion_mnist(self) -> None:
        """Let all cases share the files that the checkout has, or that one command downloads into it."""
        given = os.environ.get("GRADMILL_FASHION_MNIST_DIR")
        cache = HERE.parents[1] / "artifacts"
        if not given and not [*cache.glob("datasets/fashion-mnist/raw/*")]:
            command = ["retrain", "--no-publish", "--no-predict", "--epochs", "1"]
            self._started[0].run(command, self.scratch, {"GRADMILL_ARTIFACTS": str(cache)}, self.scratch)
        found = [*Path(given).iterdir()] if given else [*cache.glob("datasets/fashion-mnist/raw/*")]
        (self.scratch / "fashion-mnist").mkdir()
        for path in found:
            name = path.name if given else path.name.rpartition(".")[0]
            (self.scratch / "fashion-mnist" / name).symlink_to(path)


def run_all(names: list[str], tree: Path, jobs: int, keep: bool) -> Answers:
    """The answers of a tree to these cases; of those that were answered, where Ctrl-C or SIGTERM ends it."""
    answers: Answers = {}
    scratch = Path(tempfile.mkdtemp(prefix="golden-"))
    corpus = Corpus(tree, scratch, jobs, keep)
    try:
        if any(name.startswith("book/") for name in names):
            corpus.link_fashion_mnist()
        with ThreadPoolExecutor(jobs) as pool:
            asked = {pool.submit(corpus.run, name): name for name in names}
            try:
                for done in as_completed(asked):
                    answers[asked[done]] = done.result()
                    print(f"{len(answers)} of {len(names)}: {asked[done]}", file=sys.stderr)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
            except SystemExit:
                pool.shutdown(cancel_futures=True)
                raise
        return {name: answers[name] for name in names if name in answers}
    finally:
        corpus.close()
        print(f"kept in {scratch}" if keep else "", end="", file=sys.stderr)
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)


def environment() -> dict[str, str]:
    """What ``exact`` answers hang on."""
    versions = {name: metadata.version(name) for name in ("torch", "numpy", "scipy", "onnx")}
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return versions | {"python": platform.python_version(), "machine": "".join(model[:1]) or platform.machine()}


def read_answers() -> Answers:
    """All that was recorded."""
    documents = [json.loads(path.read_text()) for path in sorted(ANSWERS.glob("*.json"))]
    return observing.unfold({name: case for document in documents for name, case in document.items()})


def write_answers(answers: Answers) -> None:
    """A file for each group of cases, with a line for each step."""
    ANSWERS.mkdir(exist_ok=True)
    groups: dict[str, list[str]] = {}
    for name, case in observing.fold(answers).items():
        told = (f"  {json.dumps(step)}: {json.dumps(said, ensure_ascii=False)}" for step, said in case.items())
        groups.setdefault(name.partition("/")[0], []).append(f"{json.dumps(name)}: {{\n" + ",\n".join(told) + "\n}")
    for path in ANSWERS.glob("*.json"):
        path.unlink()
    for group, blocks in groups.items():
        (ANSWERS / f"{group}.json").write_text("{\n" + ",\n".join(blocks) + "\n}\n", errors="surrogateescape")


def unlisted(found: list[tuple[str, str, Any, Any]], names: list[str]) -> Iterator[str]:
    """What is to be told: differences that are not listed, and listed ones that are no more."""
    listed = tomllib.loads(LISTED.read_text()).get("difference", [])
    used = set()
    for case, path, old, new in found:
        for number, each in enumerate(listed):
            if fnmatch.fnmatchcase(case, each["case"]) and fnmatch.fnmatchcase(path, each["path"]):
                used.add(number)
                break
        else:
            was, now = (json.dumps(each, ensure_ascii=False) for each in (old, new))
            yield f"{case}: {path}\n    was {was}\n    is  {now}"
    for number, each in enumerate(listed):
        if number not in used and fnmatch.filter(names, each["case"]):
            yield f"listed, and no more: {each['case']}: {each['path']} ({each['reason']})"


def compare(recorded: Answers, answers: Answers) -> list[tuple[str, str, Any, Any]]:
    """Case, path, what was and what is."""
    is_same_machine = recorded.get("environment") == {"versions": environment()}
    if not is_same_machine:
        print("another machine or other versions than recorded: exact digests are not compared", file=sys.stderr)
    return [
        (name, path, old, new)
        for name in answers
        for path, old, new in observing.differences(recorded.get(name, {}), answers[name])
        if is_same_machine or ".exact" not in path
    ]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python tests/golden", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["check", "record", "list"], default="check")
    parser.add_argument("--tree", type=Path, default=HERE.parents[1], help="the checkout to run")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="such as 'csv/*'; may be given again")
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK}th case")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="leave the folders of the cases for a look")
    asked = parser.parse_args()
    patterns = asked.only or ["*"]
    names = [name for name in cases.CASES if any(fnmatch.fnmatchcase(name, each) for each in patterns)]
    recorded = read_answers()
    if asked.what == "check":
        names = [name for name in names if name in recorded]
    names = names[::QUICK] if asked.quick else names
    if asked.what == "list":
        print("\n".join(names))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    answers = run_all(names, asked.tree.resolve(), asked.jobs, asked.keep)
    told = f"{len(answers)} of {len(names)} cases in {time.monotonic() - began:.0f} s"
    if asked.what == "record":
        together = recorded | answers | {"environment": {"versions": environment()}}
        write_answers({name: together[name] for name in ["environment", *cases.CASES] if name in together})
        print(f"{told}: recorded")
        return 0
    found = compare(recorded, answers)
    lines = [*unlisted(found, names)]
    print("\n".join([*lines, f"{told}: {len(lines)} unlisted differences, {len(found) - len(lines)} listed"]))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
