"""``python -m benchmarks NAME…``: measure, print, and write a document each."""

import argparse
import importlib
import os
from pathlib import Path

from benchmarks import measure

NAMES = ("train", "tables", "predict", "images", "tune", "start", "gates", "quality")
ABOUT = f"{', '.join(NAMES)}, or all of them; or load, which has the machine alone"


def main() -> None:
    """Run the benchmarks that are named.

    Documents of whole runs of this checkout alone go to docs/benchmarks/, which docs/speed.md prints; others to
    artifacts/benchmarks/.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=[*NAMES, "all", "load"], metavar="NAME", help=ABOUT)
    parser.add_argument("--quick", action="store_true", help="a short look: less data, one round")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often every side takes its turn")
    parser.add_argument("--beside", type=Path, metavar="PATH", help="another checkout, which is measured in turns")
    parser.add_argument("--minutes", type=float, metavar="N", default=30, help="of load")
    parser.add_argument("--names", type=int, metavar="N", dest="num_names", default=20, help="that load retrains")
    asked = parser.parse_args()
    if asked.names == ["load"]:
        importlib.import_module("benchmarks.load").bench(asked.minutes, asked.num_names)
        return
    is_whole = not (asked.quick or asked.rounds or asked.beside)
    folder = measure.HERE / "docs" / "benchmarks" if is_whole else measure.ARTIFACTS / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES if "all" in asked.names else asked.names:
        load = round(os.getloadavg()[0], 1)  # before anything of ours is in it
        module = importlib.import_module(f"benchmarks.{name}")
        if name == "gates":  # a simulation: nobody takes turns
            report = module.bench(asked.quick)
        else:
            with measure.set_up(asked.quick, asked.rounds, asked.beside) as setup:
                report = module.bench(setup)
        report.conditions["load_before"] = load
        (path := folder / f"{name}.json").write_text(report.model_dump_json(indent=2) + "\n")
        measure.show(report, path)


if __name__ == "__main__":
    main()
