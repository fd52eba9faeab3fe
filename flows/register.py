"""``python -m flows.register``: tell the server of PREFECT_API_URL what it schedules and watches, and end.

For containers, where server and workers are services of their own. Run again, it brings all of it up to date.
"""

import sys

from prefect.settings import PREFECT_API_URL

from flows import operation
from tasks.errors import GradmillError, UsageError


def main() -> int:
    """Register; return an exit code."""
    try:
        if not (api_url := PREFECT_API_URL.value()):
            raise UsageError("PREFECT_API_URL is not set", "the address of a Prefect API", "set it")
        operation.register(api_url)
    except GradmillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
