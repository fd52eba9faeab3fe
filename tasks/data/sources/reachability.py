"""Where Fashion-MNIST would come from now: looked up and knocked at, nothing fetched."""

import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tasks.data import fashion_mnist
from tasks.data.sources import cache
from tasks.data.sources.places import Debian, Directory, SourceUnreachable, Torchvision
from tasks.machine.settings import Settings

TIMEOUT_SECONDS = 3.0
APT_HELPER = Path("/usr/lib/apt/apt-helper")


def source() -> str:
    """Name what ``download`` would use.

    Raises:
        DataError: the user's folder lacks a file, or the cache is not whole and nothing answers.
    """
    user_dir = Settings().fashion_mnist_dir
    if user_dir is not None:
        Directory(user_dir).fetch(fashion_mnist.FILES, scratch=user_dir)  # writes nothing
        return f"the four files are in {user_dir}"
    if all(map(cache.is_whole, fashion_mnist.FILES)):
        return "in artifacts/ already, verified by SHA-256"
    return _first_that_answers()


def _first_that_answers() -> str:
    addresses = Torchvision().urls
    with ThreadPoolExecutor() as pool:  # all at once, so that one that is silent costs no more than its timeout
        debian = pool.submit(_debian_fault)
        faults = [*pool.map(_fault, addresses), debian.result()]
    for name, fault in zip([*addresses, str(Debian())], faults, strict=True):
        if fault is None:
            return f"not fetched yet; {name} answers"
    raise SourceUnreachable(
        "Fashion-MNIST is not in artifacts/ and no source answers: " + "; ".join(map(str, faults)),
        "a network, or a folder with the four IDX files",
        "set GRADMILL_FASHION_MNIST_DIR to such a folder, or try again with a network",
    )


def _fault(url: str) -> str | None:
    file = f"{fashion_mnist.FILES[0].name}.gz"
    try:
        httpx.head(url + file, timeout=TIMEOUT_SECONDS, follow_redirects=True).raise_for_status()
    except httpx.HTTPStatusError as error:
        return f"{url} HTTP {error.response.status_code}"
    except httpx.HTTPError as error:
        return f"{url} {str(error) or type(error).__name__}"
    return None


def _debian_fault() -> str | None:
    """Fetch one signed index the way apt is configured here, with its proxies: 0.1 MB."""
    if shutil.which("apt-get") is None or not APT_HELPER.exists():
        return "this is not Debian"
    listed = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True, check=False)
    index = re.search(r"'(https?://[^']*/InRelease)'", listed.stdout)
    if index is None:
        return "apt has no source"
    options = [f"-oAcquire::{each}::Timeout={TIMEOUT_SECONDS:.0f}" for each in ("http", "https")]
    with tempfile.TemporaryDirectory() as scratch:
        command: list[str | Path] = [APT_HELPER, *options, "-oAcquire::Retries=0", "-oAPT::Sandbox::User="]
        try:
            done = subprocess.run(
                [*command, "download-file", index[1], Path(scratch) / "InRelease"],
                capture_output=True, check=False, timeout=2 * TIMEOUT_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"apt: no answer in {2 * TIMEOUT_SECONDS:.0f} s"
    return "apt reaches no mirror" if done.returncode else None
