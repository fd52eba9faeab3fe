"""Stand-ins for the images that docker/ takes from a registry, made of Debian's packages and this Python; never pushed.

They keep what the production files rely on: Debian trixie, Python 3.11 in /usr/local, and PostgreSQL 17 with the
variables, the user and the folders of the official image.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from container_engine import REPOSITORY, Engine

LIBRARY = "docker.io/library"
AGE = 1_700_000_000  # of every file in a build, seconds
MADE_OF = (
    *("docker", "flows", "gradmill", "tasks"),
    *(".dockerignore", "LICENSE", "README.md", "prefect.yaml", "pyproject.toml"),
)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PYTHON = """
FROM docker.io/library/debian:trixie-slim
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends ca-certificates netbase tzdata libbz2-1.0 \\
      libexpat1 libffi8 liblzma5 libncursesw6 libreadline8t64 libsqlite3-0 libssl3t64 libuuid1 zlib1g \\
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN --mount=type=bind,from=python,target=/python \\
    tar -C /python --exclude=site-packages --exclude=test --exclude=__pycache__ --exclude='*.a' \\
      -c bin/python3.11 lib | tar -C /usr/local -x --no-same-owner \\
    && mkdir -p /usr/local/lib/python3.11/site-packages && ldconfig \\
    && ln -s python3.11 /usr/local/bin/python3 && ln -s python3.11 /usr/local/bin/python \\
    && python -m ensurepip && ln -s pip3 /usr/local/bin/pip
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
"""
POSTGRES = """
FROM docker.io/library/debian:trixie-slim
RUN groupadd --system --gid 999 postgres \\
    && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \\
    && mkdir /etc/postgresql-common && echo create_main_cluster=false > /etc/postgresql-common/createcluster.conf \\
    && apt-get update -qq \\
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql-17 \\
    && rm -rf /var/lib/apt/lists/* \\
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data /var/run/postgresql
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data
COPY <<'EOF' /usr/local/bin/start
#!/bin/bash
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") --auth=scram-sha-256 --auth-local=trust
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -w start -o "-c listen_addresses=''"
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  pg_ctl -w stop
fi
exec "$@"
EOF
RUN chmod 755 /usr/local/bin/start
ENTRYPOINT ["start"]
STOPSIGNAL SIGINT
CMD ["postgres", "-c", "listen_addresses=*"]
"""


def make(engine: Engine) -> None:
    """Make those that are not in the engine's storage yet."""
    there = engine.podman("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    if f"{LIBRARY}/debian:trixie-slim" not in there:
        _debian(engine)
    if f"{LIBRARY}/python:3.11-slim-trixie" not in there:
        _build(engine, "python:3.11-slim-trixie", PYTHON, "--build-context", f"python={sys.base_prefix}")
    if f"{LIBRARY}/postgres:17" not in there:
        _build(engine, "postgres:17", POSTGRES)


def _debian(engine: Engine) -> None:
    folder = engine.root / "tmp" / "debian"
    engine.command(["rm", "-rf", str(folder)], timeout=60)
    engine.command(["debootstrap", "--variant=minbase", "trixie", str(folder), _debian_mirror()], timeout=600)
    archive = folder.with_suffix(".tar")
    left_out = ("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*")
    engine.command(["tar", "-C", str(folder), *left_out, "-cf", str(archive), "."], timeout=600)
    engine.podman("import", "--quiet", str(archive), f"{LIBRARY}/debian:trixie-slim")
    engine.command(["rm", "-rf", str(folder), str(archive)], timeout=60)


def _debian_mirror() -> str:
    """The mirror that this machine's own apt uses for trixie."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: trixie", "Component: main"]
    listed = subprocess.check_output(command, text=True).split()
    assert listed, "apt knows no mirror of Debian trixie"
    return listed[0]


def _build(engine: Engine, name: str, containerfile: str, *options: str) -> None:
    empty = engine.root / "tmp" / "empty"
    empty.mkdir(exist_ok=True)
    tag = ("--tag", f"{LIBRARY}/{name}", "--file", "-")
    engine.podman("build", "--quiet", "--network", "host", *options, *tag, str(empty), timeout=600, stdin=containerfile)


@cache
def image(engine: Engine, target: str) -> str:
    """The name of a target's image, which is built once for all tests."""
    build(engine, target, REPOSITORY)
    return f"{LIBRARY}/gradmill:{target}"


def build(engine: Engine, target: str, checkout: Path) -> None:
    """Build a target of a checkout's Dockerfile as it stands; tagged ``gradmill:<target>``, as in compose.yaml."""
    command = ("build", "--format", "docker", "--network", "host", "--target", target, "--file", "docker/Dockerfile")
    name = f"{LIBRARY}/gradmill:{target}"
    context = _without_times(checkout, engine.root / "tmp" / "context")
    engine.command(["podman", *command, "--tag", name, *_like_this_machine(engine), "."], timeout=1500, cwd=context)


def _without_times(checkout: Path, context: Path) -> Path:
    """A copy of what an image is made of, all of one age: Podman's cache heeds times, and a clone's are its own."""
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    copy_checkout(checkout, context)
    for path in context.rglob("*"):
        os.utime(path, (AGE, AGE))
    return context


def copy_checkout(checkout: Path, folder: Path) -> None:
    """Copy what the images are made of, and nothing of this machine's."""
    ours = shutil.ignore_patterns(".env", "__pycache__")
    for name in MADE_OF:
        if (checkout / name).is_dir():
            shutil.copytree(checkout / name, folder / name, ignore=ours)
        else:
            shutil.copy(checkout / name, folder)


def _like_this_machine(engine: Engine) -> Sequence[str]:
    """How pip here reaches packages, for a build: as mounts, since a variable would stay in the image."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    found = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    pip = {key: found[key] for key in ("index-url", "extra-index-url", "trusted-host", "timeout") if key in found}
    configuration = engine.run_folder / "pip.conf"
    configuration.write_text("\n".join(["[global]", f"cert = {CERTIFICATES}", *(f"{k} = {v}" for k, v in pip.items())]))
    options = ["--volume", f"{configuration}:/etc/pip.conf:ro", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    wheels = found.get("find-links", "")
    return [*options, "--build-context", f"wheels={wheels}"] if Path(wheels).is_dir() and wheels else options
