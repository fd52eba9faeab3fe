"""What the command line, the path, the header or the store shows to be wrong: said before any server is started."""

from pathlib import Path

import pytest

import flows.cli.app

PRIVATE = [
    *(f"https://host/t.csv?{key}=secret" for key in ("jwt", "code", "auth", "pass", "bearer", "hmac", "sas")),
    "https://host/t.csv#token=secret",
    "https://host/t.csv;token=secret",
    "https://host/t.csv?url=http://u:secret@h/",
    "https://host/t.csv?raw=1;sas=secret",
    "https://host:port/t.csv?jwt=secret",
    "https://me:sec?ret@host/t.csv",
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    code = flows.cli.app.run(list(arguments))
    return code, "".join(capsys.readouterr())


SECRETS = [
    *(("retrain linear-regression --name x --data URL --target y", url) for url in PRIVATE),
    ("retrain linear-regression --data URL --debug", PRIVATE[0]),
    ("retrain linear-regression --name x --data URL", PRIVATE[0]),
    ("tune linear-regression --name x --data URL --target y --json", PRIVATE[0]),
    ("inspect URL --target y", PRIVATE[0]),
    ("predict URL --name x", PRIVATE[0]),
    ("evaluate x URL", PRIVATE[0]),
    ("schedule predict-daily --param input=URL", PRIVATE[0]),
]


@pytest.mark.parametrize(("command", "url"), SECRETS)
def test_a_url_with_what_may_be_a_secret_is_neither_printed_nor_written(
    command: str, url: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = run(capsys, *command.replace("URL", url).split())
    assert code == 2
    assert "credentials" in printed
    assert not any(part in printed for part in ("secret", "sec?ret", "sec"))
    assert not artifacts.exists()
