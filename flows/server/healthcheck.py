"""A container's health check: ``python -m flows.server.healthcheck``, with GRADMILL_HEALTH_URL if it serves something.

It is a module because some engines split an inline command at its spaces. It runs every few seconds, so imports little.
"""

import os
import sys
import urllib.request
from http.client import HTTPException

TIMEOUT_SECONDS = 5.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # engines inject the host's proxies


def find_fault(url: str, artifacts: str) -> str | None:
    """The fault: ``url`` does not answer 200 or, if it is empty, ``artifacts`` is not writable; None if healthy."""
    if not url:
        return None if os.access(artifacts, os.W_OK | os.X_OK) else f"{artifacts} is not a writable folder"
    try:
        with DIRECT.open(url, timeout=TIMEOUT_SECONDS):
            return None
    except (OSError, ValueError, HTTPException) as error:
        return f"{url}: {error}"


def main() -> int:
    """Print the fault, if any; return 0 for healthy and 1 for not."""
    found = find_fault(os.environ.get("GRADMILL_HEALTH_URL", ""), os.environ.get("GRADMILL_ARTIFACTS", "artifacts"))
    print(found or "ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
