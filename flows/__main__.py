"""The ``gradmill`` command: all imports are inside functions, so that Ctrl-C has a handler from the start."""

import atexit
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path

INTERRUPTED = 130
NEW_OBJECTS = 50_000  # between two garbage collections: most objects of a command come from imports, and stay
THEN = {
    "predict": "run the same command again to continue from here",
    "tune": "trials that have ended are kept; run the same command again to continue after them",
    "demo": "the page is no longer served",
    "trigger": "gradmill status shows the runs",
    "up": "run the same command again to continue with the same history",
    "promote": "gradmill models shows the champion",
    "freeze": "gradmill models shows whether it is frozen",
    "unfreeze": "gradmill models shows whether it is frozen",
    "rollback": "gradmill models shows the champion; if it has changed, another rollback would go one further back",
}


def _is_zen_4() -> bool:
    """Whether numpy sorts five times faster without AVX-512, part of which this processor does in microcode."""
    with suppress(OSError), Path("/proc/cpuinfo").open("rb") as file:
        about = file.read(4096)
        return b"AuthenticAMD" in about and b"cpu family\t: 25\n" in about and b"avx512f" in about
    return False


def _require_linux() -> None:
    """Exit with code 1 on other systems, which have neither /proc nor ``posix_fallocate``."""
    if sys.platform != "linux":
        system = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        lines = (
            f"gradmill: this is {system}",
            "expected: Linux",
            "to do: run it on Linux, in a container or in WSL; the published model.onnx runs on any system",
        )
        sys.exit("\n".join(lines))


def main() -> None:
    """Run the command line and exit with its code."""
    _require_linux()
    for variable in ("DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY"):  # for child processes too
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")  # clearing huge pages takes longer than using small ones
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # numpy reuses what pyarrow frees (docs/speed.md)
    gc.set_threshold(NEW_OBJECTS)
    if _is_zen_4():
        os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4")
    exit_codes: list[int] = []
    # Registered first, so called last: after threads and libraries have finished.
    atexit.register(_end_at_once, exit_codes)
    try:
        from flows import interrupt
        from flows.cli import streams

        interrupt.watch(_leave)
        streams.guard()
        from flows.cli import app

        code = app.run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:  # a panic in Rust code is not an Exception
        if not interrupt.is_interrupted():
            raise
        code = INTERRUPTED
    if code == INTERRUPTED:
        _say_interrupted()
        os._exit(code)  # threads of libraries would wait, or print their own tracebacks
    else:
        exit_codes.append(code)
    sys.exit(code)


def _end_at_once(exit_codes: list[int]) -> None:
    """Exit without Python's cleanup, which takes over a second after an import of torch."""
    if exit_codes:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(*exit_codes)


def _leave() -> None:
    """Exit immediately, wherever the command is, without touching streams or locks that may be in use."""
    found, action = _describe_interrupt()
    with suppress(OSError):
        os.write(2, f"\n{found}; {action}\n".encode())
    os._exit(INTERRUPTED)


def _describe_interrupt() -> tuple[str, str]:
    """The message to print, and what repeating the command would do."""
    from flows import interrupt

    found = f"interrupted; {interrupt.done}" if interrupt.done else "interrupted"
    return found, THEN.get("".join(sys.argv[1:2]), "running the same command again starts over")


def _say_interrupted() -> None:
    from flows.cli import streams

    if display := sys.modules.get("flows.cli.display"):  # after an interrupted import, importing it can fail
        display.end()
    found, action = _describe_interrupt()
    if streams.asks_for_json(sys.argv):
        error = {"exit_code": INTERRUPTED, "found": found, "expected": "no Ctrl-C", "action": action}
        streams.print_document({"error": error})
    text = f"{found}; {action}"
    print(display.fit(text, display.progress.CONSOLE) if display else text, file=sys.stderr, flush=True)
    with suppress(OSError):
        sys.stdout.flush()  # flush earlier output too: os._exit would drop it


if __name__ == "__main__":
    main()
