"""The ``gradmill`` command: everything is imported inside, so that Ctrl-C finds a handler from the first moment."""

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from flows import interrupt

        interrupt.watch()
        from flows import cli

        code = cli.run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:
        if not interrupt.received():
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:
        then = "goes on from here" if sys.argv[1:2] == ["predict"] else "starts afresh"
        print(f"interrupted; the same command again {then}", file=sys.stderr, flush=True)
        os._exit(code)  # threads of libraries would wait, or print tracebacks of their own
    sys.exit(code)


if __name__ == "__main__":
    main()
