"""Make the pictures of README and docs anew, from real runs: ``make pictures``.

Needs tmux and Chromium, and takes some minutes, most of them the month. With names of pictures only these are made.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import month
import speed_picture
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

DOCS = Path(__file__).parent
WORK = Path(tempfile.mkdtemp(prefix="gradmill-"))  # shown as the folder of artifacts/
COLUMNS, LINES = 80, 60
LARGEST = 200_000  # bytes
COLOURS = 128
REFUSED = 3  # the exit code


def gradmill(*words: str, expected: int = 0) -> str:
    """What a command says on stdout; it ends all if it does not end as expected."""
    done = month.gradmill(*words)
    if done.returncode != expected:
        sys.exit(f"gradmill {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def keep(name: str, screenshot: bytes) -> None:
    """Write a picture with few colours."""
    with Image.open(io.BytesIO(screenshot)) as picture, io.BytesIO() as stream:
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        content = stream.getvalue()
    if len(content) > LARGEST:
        sys.exit(f"{name} would have {len(content):,} bytes: {LARGEST:,} at most")
    (DOCS / name).write_bytes(content)
    print(f"{name}: {len(content):,} bytes", flush=True)


@contextmanager
def up() -> Iterator[str]:
    """``gradmill up`` for the block, at a free port; the address of its UI."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(month.SCRIPT), "up", "--no-auth", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            if not any(line.startswith("Ctrl-C") for line in server.stdout or ()):
                sys.exit("gradmill up has not started")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGINT)


def of_terminal(browser: Browser) -> None:
    """``make run`` at a real terminal, from its first stage on, as in a clone: artifacts/ is in the current folder."""
    for name in ("Makefile", "pyproject.toml", ".venv"):
        (WORK / name).symlink_to(DOCS.parent / name)
    tmux = ("tmux", "-L", "gradmill-pictures", "-f", os.devnull)
    command = f"make run; {' '.join(tmux)} wait-for -S done; sleep 60"
    size = ("-x", str(COLUMNS), "-y", str(LINES))
    subprocess.run([*tmux, "new-session", "-d", *size, command], cwd=WORK, check=True)
    subprocess.run([*tmux, "wait-for", "done"], check=True)
    pane = subprocess.run([*tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True).stdout
    subprocess.run([*tmux, "kill-server"], check=True)
    before, first, stages = pane.rstrip().partition(next(line for line in pane.splitlines() if "download " in line))
    shown = Text.from_ansi("\n".join(["$ make run", *["…"] * bool(before.strip()), first + stages]))
    if "try next" not in shown.plain:
        sys.exit(f"make run has not ended well:\n{shown.plain}")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(shown, "", sep="\n", highlight=False)  # the picture's edge would cut what hangs below the last line
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="gradmill", theme=MONOKAI), flags=re.DOTALL)
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block; width: 1000px }}</style>{svg}")
    keep("terminal.png", page.locator("svg").screenshot(omit_background=True))


def wait_for_stages(ui: str, run: str) -> None:
    """Until the server has the end of each, of which it hears later than of the run's: a page shows what was known."""
    wanted = FlowRunFilter.model_validate({"id": {"any_": [run]}})
    with SyncPrefectClient(f"{ui}/api") as client:
        while not all(stage.end_time for stage in client.read_task_runs(flow_run_filter=wanted)):
            time.sleep(0.5)


def of_ui(browser: Browser) -> None:
    """In Prefect's UI a run that has published, and the verdict of one that was refused."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="dark", timezone_id="UTC")
    page.set_default_timeout(60_000)
    linear = ("name=hopeless", "training.model=linear-regression", "training.num_epochs=1")
    with up() as ui:
        fashion = ("--param", "name=fashion", "--param", "force=true")
        run = json.loads(gradmill("trigger", "softmax-nightly", *fashion, "--wait", "--json"))
        wait_for_stages(ui, run["id"])
        page.goto(run["url"])
        page.get_by_text("verdict:published").first.wait_for()
        page.wait_for_timeout(8000)  # the graph comes late, and is drawn with an animation
        keep("run.png", page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": 620}))
        hopeless = [word for param in linear for word in ("--param", param)]
        gradmill("trigger", "linear-weekly", *hopeless, "--wait", expected=REFUSED)
        page.goto(f"{ui}/artifacts/key/hopeless-verdict")
        link = page.locator("a[href*='/artifacts/artifact/']").first.get_attribute("href")
        page.goto(f"{ui}{link}")
        page.locator("td").filter(has_text="refused").first.wait_for()
        page.wait_for_timeout(2000)
        keep("verdict.png", page.screenshot(clip={"x": 0, "y": 0, "width": 1280, "height": 620}))


def of_month(browser: Browser) -> None:
    """The overview after the month of ``make month``."""
    nights = month.Month(WORK / "month", month.gradmill)
    overview = nights.artifacts / "overview.html"
    os.environ["GRADMILL_ARTIFACTS"] = str(nights.artifacts)
    with up():
        for told in nights.nights():
            print(told, flush=True)
        gradmill("report", month.NAME, "--output", str(overview))
    page = browser.new_page(viewport={"width": 960, "height": 1085})  # down to the trend
    page.goto(overview.as_uri())
    keep("month-overview.png", page.screenshot())


def of_speed(_: Browser) -> None:
    """The figures of the benchmarks' documents."""
    with io.BytesIO() as stream:
        speed_picture.draw().savefig(stream, dpi=110)
        keep("speed.png", stream.getvalue())


PICTURES = {
    "terminal.png": of_terminal,
    "run.png": of_ui,
    "verdict.png": of_ui,
    "month-overview.png": of_month,
    "speed.png": of_speed,
}


def main(names: list[str]) -> None:
    """Make some or all pictures, with artifacts and a Prefect of their own."""
    fetched = Path(os.environ.get("GRADMILL_ARTIFACTS", "artifacts"), "datasets", "fashion-mnist", "raw")
    if fetched.is_dir():
        shutil.copytree(fetched, WORK / "artifacts" / "datasets" / "fashion-mnist" / "raw")
    for variable in [each for each in os.environ if each in ("CI", "NO_COLOR") or each.startswith("PREFECT_")]:
        del os.environ[variable]
    os.environ |= {"GRADMILL_ARTIFACTS": str(WORK / "artifacts"), "PREFECT_HOME": str(WORK / "prefect")}
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for make in dict.fromkeys(PICTURES[name] for name in names or PICTURES):
            make(browser)
        browser.close()
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main(sys.argv[1:])
