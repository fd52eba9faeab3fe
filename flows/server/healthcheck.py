"""A container's health check: ``python -m flows.server.healthcheck``, with GRADMILL_HEALTH_URL if it serves something.

A module, since some engines split an inline command again at its spaces. It imports little: it runs every few seconds.
"""

import os
import sys
import urllib.request

TIMEOUT_SECONDS = 5.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # engines inject the host's proxies


def find_fault(url: str, artifacts: str) -> str | None:
    """What is wrong: ``url`` does not answer 200 or, where it is empty, ``artifacts`` cannot be written; else None."""
    if not url:
        return None if os.access(artifacts, os.W_OK | os.X_OK) else f"{artifacts} is not a writable folder"
    try:
        with DIRECT.open(url, timeout=TIMEOUT_SECONDS):
            return None
    except (OSError, ValueError) as error:
        return f"{url}: {error}"


def main() -> int:
    """Print the fault, if any; return 0 for healthy and 1 for not."""
    found = find_fault(os.environ.get("GRADMILL_HEALTH_URL", ""), os.environ.get("GRADMILL_ARTIFACTS", "artifacts"))
    print(found or "ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
