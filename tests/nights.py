"""Forty nights of a model, made up: the documents that runs, predictions and people leave, and what is true of them.

What is true is said from the plan, in words of its own: nothing of Gradmill's is asked for it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from candidate import job_document, seal
from tasks.parameters import RetrainParameters

NAME, OTHER = "linear-regression", "linear-regression-too"
# A letter a night: published, refused by its bound or by the champion, diverged, failed, killed, judged, unchanged, and
# x where the data are not fit.
PLAN = "prpjkpupcpdpxppeprppuppkppdpxppcppeprpjk"
AT_NOON = {3: "rolled back", 4: "unfrozen", 20: "promoted", 38: "rolled back"}
PROMOTED = 5  # version
FIRST = datetime(2026, 10, 1, 3, tzinfo=UTC)
REASON = "the <b>errors</b> | were odd"
FAULT = "x is 1000 times as large"
COMMANDS: list[tuple[str, ...]] = [
    ("next and stuck runs, workers, alerts", "`gradmill status`"),
    ("leave out the next run", f"`gradmill skip {NAME}`"),
    ("other settings, once", "`gradmill trigger DEPLOYMENT --param training.lr=0.1`"),
    ("other settings, for good", "`gradmill schedule DEPLOYMENT --param training.lr=0.1`"),
    ("does an alert arrive", "`gradmill notify --test`"),
    ("if this machine dies", "`gradmill backup DIR` here, `gradmill restore DIR` on another"),
    ("figures for Prometheus", "`gradmill metrics`"),
]


class Run(NamedTuple):
    """One night: what it came to, in the trend's word and in the page's; its figure, its bound, and what is live."""

    at: datetime
    folder: Path
    outcome: str
    words: str
    is_judged: bool
    value: float | None
    refused: tuple[tuple[str, str, str], ...]  # gate, found, required
    live: int


def minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


def day(at: datetime) -> str:
    return f"{at.day} {at:%b}{'' if at.year == datetime.now(UTC).year else f' {at.year}'}"


def size(number: int) -> str:
    power = max(0, number.bit_length() - 1) // 10
    return f"{number / 1024**power:.1f} {('bytes', 'KiB', 'MiB', 'GiB')[power]}" if power else f"{number} bytes"


def content(*folders: Path) -> int:
    return sum(path.lstat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def gate(name: str, value: float, maximum: float) -> dict[str, Any]:
    facts = {"name": name, "value": value, "minimum": None, "maximum": maximum, "passed": value <= maximum}
    return facts | {"detail": f"at most {maximum}"}


class Nights:
    """The walk so far, in an artifacts folder that begins with one version's folder as a pattern for all."""

    def __init__(self, pattern: Path, artifacts: Path) -> None:
        self.artifacts, self.pattern = artifacts, pattern / "models" / NAME / "1"
        self.random = np.random.default_rng(17)
        shutil.copytree(pattern / "datasets", artifacts / "datasets")
        self.model = artifacts / "models" / NAME
        self.runs: list[Run] = []
        self.versions: dict[int, dict[str, Any]] = {}  # their manifests
        self.changes: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.job_folders: list[Path] = []
        self.live, self.before, self.since = 0, 0, FIRST
        self.held: list[int] = []
        self.frozen = False
        self._others()

    def pass_by(self) -> Iterator[int]:
        """Each night in turn, with its noon after it."""
        for night, letter in enumerate(PLAN, 1):
            self._run(night, letter)
            if night % 3 == 0:
                self._predict(night)
            if night in AT_NOON:
                self._at_noon(night, AT_NOON[night])
            self._point()
            yield night

    def _run(self, night: int, letter: str) -> None:
        at, value = FIRST + timedelta(days=night - 1), round(float(self.random.uniform(0.1, 0.9)), 6)
        run, number = f"{at:%Y%m%dT%H%M%S}-{NAME}-{night:08x}", len(self.versions) + 1
        folder = self.artifacts / "runs" / run
        gates = [gate("test_loss", 3 * value + 1 if letter == "r" else value, 1.0)]
        gates += [gate("champion_loss", 0.0625, 0.01)] if letter == "c" else []
        outcome, words, stages, ended_in, exit_code = self._came_to(letter, night, number, gates)
        seconds = {stage: 1.5 for stage in (*stages, ended_in) if stage}
        self._note(NAME, folder, stages, seconds, exit_code)
        if letter == "x":
            finding = {"severity": "error", "rule": "other-scale", "column": "x", "found": FAULT, "action": "mend it"}
            report = {"schema_version": 1, "name": NAME, "summary": "", "findings": [finding]}
            (folder / "data-report.json").write_text(json.dumps(report))
        if letter == "p":
            self._publish(number, run, at, gates)
        refused = ((each["name"], f"{each['value']:.4g}", each["detail"]) for each in gates if not each["passed"])
        figure = gates[0]["value"] if "evaluate" in stages else None
        self.runs.append(Run(at, folder, outcome, words, letter in "prcjd", figure, (*refused,), self.live))

    def _came_to(
        self, letter: str, night: int, number: int, gates: list[dict[str, Any]]
    ) -> tuple[str, str, dict[str, Any], str, int | None]:
        """The trend's word, the page's words, what stages have noted, in which one it has ended, with which code."""
        judged = {"evaluate": {"metrics": {"test_loss": gates[0]["value"]}, "gates": gates, "pictures": []}}
        unchanged = {"unchanged": {"outcome": "unchanged", "version": self.live, "detail": "of these rows"}}
        passed = "passed every gate and published nothing"
        in_train = "train" if night % 2 else ""
        killed = "was interrupted in train" if in_train else "was killed"
        came_to: dict[str, tuple[str, str, dict[str, Any], str, int | None]] = {
            "p": ("published", f"published version {number}", self._decided(judged, "published", number), "", None),
            "j": ("judged", passed, self._decided(judged, "judged"), "", None),
            "r": ("refused", "refused by test_loss", judged, "", 3),
            "c": ("refused", "refused by champion_loss", judged, "", 3),
            "d": ("failed", "diverged in train", {}, "train", 3),
            "e": ("failed", "failed in export (exit code 1)", judged, "export", 1),
            "k": ("unfinished", killed, {}, in_train, None),
            "u": ("unchanged", f"unchanged: version {self.live}", unchanged, "", None),
            "x": ("failed", "was stopped by its data in validate", {}, "validate", 4),
        }
        return came_to[letter]

    def _decided(self, judged: dict[str, Any], outcome: str, version: int | None = None) -> dict[str, Any]:
        model = {"path": f"runs/{outcome}/model.onnx", "sha256": "0" * 64}
        return judged | {"publish": {"outcome": outcome, "name": NAME, "version": version, "model": model}}

    def _note(
        self, name: str, folder: Path, stages: dict[str, Any], seconds: dict[str, float], exit_code: int | None
    ) -> None:
        asked = RetrainParameters.model_validate({"name": name, "training": {"model": NAME}}).model_dump(mode="json")
        document = {"schema_version": 1, "run": folder.name, "parameters": asked, "seconds": seconds, "stages": stages}
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(document | {"exit_code": exit_code}))

    def _publish(self, number: int, run: str, at: datetime, gates: list[dict[str, Any]]) -> None:
        folder = self.model / str(number)
        shutil.copytree(self.pattern, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        training = manifest["parameters"]["training"] | {"seed": number} | ({"lr": 0.01} if number % 3 == 0 else {})
        manifest["metrics"]["test_loss"] = gates[0]["value"]
        manifest["parameters"]["training"] = training
        manifest |= {"version": number, "run": run, "gates": gates}
        self.versions[number] = manifest | {"created_at": (at + timedelta(minutes=1)).isoformat()}
        seal(folder, self.versions[number])
        before, self.live, self.before = self.live, number, self.live
        self._change(at + timedelta(minutes=2), "published", number, before, run, "")

    def _at_noon(self, night: int, what: str) -> None:
        at, before, left = FIRST + timedelta(days=night - 1, hours=9), self.live, self.live
        if what == "rolled back":
            self.live, self.before, self.frozen = self.before, 0, True
            self.held.append(left)
        elif what == "promoted":
            self.live, self.before, left = PROMOTED, before, PROMOTED
        else:
            self.frozen = False
        self._change(at, what, left, before, "mia@duty", REASON)

    def _change(self, at: datetime, what: str, version: int, before: int, by: str, reason: str) -> None:
        if before != self.live:
            self.since = at
        change = {"at": at.isoformat(), "what": what, "versions": [version], "before": before or None}
        change |= {"champion": self.live, "frozen": self.frozen, "by": by, "reason": reason}
        log = self.model / "history.jsonl"
        lines = log.read_bytes().splitlines() if log.exists() else []
        past = hashlib.sha256(lines[-1]).hexdigest() if lines else ""
        with log.open("a") as file:
            file.write(json.dumps(change | {"past": past}) + "\n")
        self.changes.append(change)

    def _point(self) -> None:
        document = {"schema_version": 1, "version": self.live, "model_sha256": "0" * 64, "manifest_sha256": "0" * 64}
        document |= {"promoted_at": self.since.isoformat(), "previous": self.before or None}
        text = json.dumps(document | {"held": self.held, "frozen": self.frozen})
        (self.model / "champion.json").write_text(text)

    def _predict(self, night: int) -> None:
        index, rejects = round(float(self.random.uniform(0, 0.4)), 4), int(self.random.integers(3000))
        verdict = "drift" if index > 0.2 else "stable"
        facts: dict[str, Any] = {"drift": {"index": {"prediction": index}, "maximum": 0.2, "verdict": verdict}}
        facts["metrics"] = {"rmse": index + 1} if night % 2 else None
        at = FIRST + timedelta(days=night - 1, hours=3)
        self._job(NAME, night, facts | {"finished_at": at.isoformat(), "rejects": rejects, "status": "done"})
        self.jobs.append(facts | {"at": at, "version": self.live, "rejects": rejects, "rows": 5000 + night})

    def _job(self, name: str, night: int, facts: dict[str, Any]) -> None:
        folder, rows = self.artifacts / "predictions" / f"{night * 7919 % 1000:016x}", 5000 + night
        given = {"path": f"/in/day-{night}.csv", "digest": "0" * 64, "files": 1, "bytes": 9}
        shape = {"rows": rows, "shards": [[0, 0, rows]], "input": given}
        folder.mkdir(parents=True)
        (folder / "_job.json").write_text(json.dumps(job_document(name, self.live or 1, "done") | shape | facts))
        self.job_folders += [folder] if name == NAME else []

    def _others(self) -> None:
        """What is not told: a run and a prediction of a name that begins with this one's, and a job that goes on."""
        later = FIRST + timedelta(days=400)
        self._note(OTHER, self.artifacts / "runs" / f"{later:%Y%m%dT%H%M%S}-{OTHER}-00000000", {}, {}, 1)
        self._job(OTHER, 900, {"finished_at": later.isoformat()})
        self._job(NAME, 901, {"status": "running", "finished_at": None, "rejects": None, "drift": None})

    def headline(self) -> str:
        last, judged = self.runs[-1], [run for run in self.runs if run.is_judged][-1]
        live = [f"version {self.live} live since {day(self.since)}", f"loss {self.loss(self.live):.4g}"]
        ended = f"last run {last.words}"
        if judged is not last and judged.outcome != "published":
            ended += f", the one judged before, on {day(judged.at)}, {judged.words}"
        drifts = self.jobs and self.jobs[-1]["drift"]["index"]["prediction"] > 0.2
        parts = [", ".join(live + ["frozen"] * self.frozen), ended] + ["DRIFT in the last prediction"] * bool(drifts)
        return "; ".join(parts)

    def loss(self, number: int) -> float:
        return float(self.versions[number]["metrics"]["test_loss"])

    def trend(self) -> list[tuple[Any, ...]]:
        """Of the last 30 runs: when, outcome, figure, bound, what was live after it, and how good that is."""
        return [
            (run.at.isoformat(), run.outcome, run.value, run.value and 1.0, run.live, self.loss(run.live))
            for run in self.runs[-30:]
        ]

    def sections(self) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        """Lines and rows of all that is not empty, but for the room that is left on the disk."""
        told: dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]] = {
            "Live": ((), [*self._live()]),
            "Held and frozen": ((*self._holds(),), []),
            "Last run": self._last(),
            "Predictions": ((), [self._of_job(job) for job in self.jobs[: -10 - 1 : -1]]),
            "Versions": ((), [self._of_version(number) for number in self._listed()]),
            "Changes": ((), [self._of_change(change) for change in self.changes[: -10 - 1 : -1]]),
            "Disk": ((), [self._on_disk()]),
            "By command": ((), COMMANDS),
        }
        return {title: section for title, section in told.items() if any(section)}

    def _live(self) -> Iterator[tuple[str, str]]:
        manifest = self.versions[self.live]
        dataset = manifest["dataset"]
        yield "version", str(self.live)
        yield "since", f"{minute(self.since)} UTC, as all times here"
        yield "figures", f"loss {self.loss(self.live):.4g}"
        rows = f"{dataset['num_train']:,} training rows and {dataset['num_test']:,} test rows"
        yield "data", f"{dataset.get('title') or dataset['name']}, {rows}, digest {dataset['digest'][:8]}"
        yield "trained", f"{minute(datetime.fromisoformat(manifest['created_at']))} by run {manifest['run']}"
        if self.before:
            yield "back to", f"version {self.before}: `gradmill rollback {NAME}`"

    def _holds(self) -> Iterator[str]:
        if self.frozen:
            yield f"Frozen: retrains are judged and none is published, until `gradmill unfreeze {NAME}`"
        for number in self.held:
            yield f"Version {number} is held: no retrain brings it back, `gradmill promote {NAME} {number}` does"

    def _last(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        last, judged = self.runs[-1], [run for run in self.runs if run.is_judged][-1]
        lines = [f"{minute(last.at)}: {last.words}"]
        lines += [f"{FAULT}; mend it"] if "data" in last.words else []
        if judged is not last:
            lines.append(f"The last run that was judged, {minute(judged.at)}: {judged.words}")
        lines += [f"{name} {found}: {required}" for name, found, required in judged.refused]
        lines += [f"Evidence: `{judged.folder}`"] if judged.refused else []
        return (*lines,), []

    def _of_job(self, job: dict[str, Any]) -> tuple[str, ...]:
        index, file = job["drift"]["index"]["prediction"], f"day-{job['rows'] - 5000}.csv"
        truth = f"rmse {index + 1:.4g}" if job["metrics"] else ""
        numbers = str(job["version"]), file, f"{job['rows'] - job['rejects']:,}", f"{job['rejects']:,}"
        return (minute(job["at"]), *numbers, job["drift"]["verdict"], f"prediction {index:.3f}", truth)

    def _listed(self) -> list[int]:
        """The newest 20, and older ones that are held or live."""
        newest = sorted(self.versions, reverse=True)
        return newest[:20] + [number for number in newest[20:] if number in (self.live, *self.held)]

    def _of_version(self, number: int) -> tuple[str, ...]:
        manifest = self.versions[number]
        settings = "concise, lr 0.01" if number % 3 == 0 else "concise"
        rows = manifest["dataset"]["num_train"] + manifest["dataset"]["num_test"]
        mark = "champion" if number == self.live else "held" if number in self.held else ""
        made, space = datetime.fromisoformat(manifest["created_at"]), size(content(self.model / str(number)))
        figures = f"loss {self.loss(number):.4g}", settings, str(number), f"{rows:,}"
        return (str(number), minute(made), *figures, manifest["dataset"]["digest"][:8], space, mark)

    def _of_change(self, change: dict[str, Any]) -> tuple[str, ...]:
        before, after = change["before"], change["champion"]
        champion = f"{after}" if before in (None, after) else f"{before} → {after}"
        champion += ", frozen" if change["frozen"] else ""
        number = str(change["versions"][0])
        when = minute(datetime.fromisoformat(change["at"]))
        return when, change["what"], champion, change["reason"], change["by"], number

    def _on_disk(self) -> tuple[str, str]:
        dataset = self.artifacts / "datasets" / self.versions[1]["dataset"]["name"]
        parts = {"versions": content(self.model), "data": content(dataset)}
        parts |= {"runs": content(*(run.folder for run in self.runs)), "predictions": content(*self.job_folders)}
        told = ", ".join(f"{part} {size(number)}" for part, number in parts.items())
        return NAME, f"{size(sum(parts.values()))} ({told})"
