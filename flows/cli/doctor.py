"""``gradmill doctor``: one page on this machine."""

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

from flows.cli.options import Artifacts, Debug, DeviceOption, Json, choose, print_json
from flows.cli.tables import fit
from flows.server import environment
from tasks.parameters import Device

if TYPE_CHECKING:
    from flows.doctor import Finding

STYLES = {"ok": "green", "note": "magenta", "problem": "bold red"}
INDENT = 23


def doctor(
    device: DeviceOption = Device.AUTO,
    artifacts: Artifacts = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what this machine offers, what is wrong with it and what to do.

    Exit code 0: ready; 5: --device cuda and no GPU that works; 4: no source of the data; 1: anything else that is
    required does not work. Of several the highest.
    """
    choose(artifacts)
    with suppress(ValueError, RuntimeError, OSError):  # a variable that cannot be used is a finding here
        environment.settle_prefect()
    from flows.doctor import examine

    console = Console(highlight=False)
    findings = []
    for finding in examine(device, debug):
        findings.append(finding)
        if not as_json:
            _show(console, finding)
    exit_code = max(finding.exit_code for finding in findings)
    if as_json:
        checks = [{"name": each.name, **asdict(each)} for each in findings]
        print_json({"schema_version": 1, "ready": not exit_code, "exit_code": exit_code, "checks": checks})
    else:
        problems = ", ".join(finding.name for finding in findings if finding.exit_code)
        text = f"not ready: {problems} (exit code {exit_code})" if problems else "ready"
        console.print(Text(f"\n{text}", "bold"), soft_wrap=True)
    if exit_code:
        raise typer.Exit(exit_code)


def _show(console: Console, finding: "Finding") -> None:
    """A line, and one more where there is something to do."""
    name = f"{finding.name.replace('_', ' '):<14}"
    lead = Text.assemble((f"{finding.status.value:<9}", STYLES[finding.status]), (name, "bold"))
    for text in [finding.found] + [f"to do: {finding.action}"] * bool(finding.action):
        console.print(Text.assemble(lead, fit(text, console, INDENT)), soft_wrap=True)
        lead = Text(" " * INDENT)
