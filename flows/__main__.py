"""The ``gradmill`` command: everything is imported inside, so that Ctrl-C finds a handler from the first moment."""

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    for variable in ("DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY"):  # every process that is started has them, too
        os.environ.setdefault(variable, "1")
    try:
        from flows import interrupt, streams

        interrupt.watch()
        streams.guard()
        from flows import cli

        code = cli.run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception:
        if not interrupt.received():
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:
        goes_on = {"predict": "goes on from here", "up": "goes on with the same history"}
        then = goes_on.get("".join(sys.argv[1:2]), "starts afresh")
        _say_interrupted(f"the same command again {then}")
        os._exit(code)  # threads of libraries would wait, or print tracebacks of their own
    sys.exit(code)


def _say_interrupted(action: str) -> None:
    from flows import streams

    if streams.owes_json(sys.argv):
        error = {"exit_code": INTERRUPTED, "found": "interrupted", "expected": "no Ctrl-C", "action": action}
        streams.print_json({"error": error})
        sys.stdout.flush()
    print(f"interrupted; {action}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
