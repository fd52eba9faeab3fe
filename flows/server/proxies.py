"""Proxies of the environment, as every company has them: for the network, never for servers on this host."""

import os

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def spare_this_host() -> None:
    """Let no proxy stand between this process, or a child of it, and a server on this host."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [each.strip() for each in named.split(",") if each.strip()]
    if "*" not in known:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*known, *LOOPBACK]))
