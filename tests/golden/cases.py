"""The corpus: what lies in a folder, and what is typed there."""
# ruff: noqa: E501  (a case is a line)

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from PIL import Image

from golden.damages import DAMAGES
from golden.inputs import (
    Content,
    Table,
    arrays,
    as_bytes,
    as_csv,
    folders,
    houses,
    hugging_face,
    idx,
    kinds,
    later,
    npy,
    npz,
    odd_pictures,
    tensors,
    write_bundled,
)

Step = str | Mapping[str, Content] | Callable[[Path], object]


class Case(NamedTuple):
    """Steps one after the other: files to write, commands to run (with ``--json``, but after ``text``), functions.

    What begins with ``then`` runs if all before has ended with exit code 0. A case begins in an empty folder, or with a
    copy of a base.
    """

    steps: tuple[Step, ...]
    base: str = ""


def trained(
    files: Mapping[str, Content], data: str = "t.csv", target: str = "price", options: str = "", more: str = ""
) -> Case:
    """A table through inspect, retrain, predict and evaluate, all of the same files; ``more`` is for retrain only."""
    model = "linear-regression" if target == "price" else "softmax-regression"
    return Case((
        files, f"inspect {data} --target {target} {options}".strip(),
        f"retrain {model} --name m --data {data} --target {target} --no-predict {options} {more}".strip(),
        f"then predict {data} --name m --output out", f"then evaluate m {data}",
    ))  # fmt: skip


def same(files: Mapping[str, Content], data: str = "t.csv") -> Case:
    """The same houses written otherwise: a retrain finds its data unchanged, or says what is wrong with them."""
    return Case((
        files, f"inspect {data} --target price", f"retrain m --data {data} --no-predict",
        f"predict {data} --name m --output out", f"evaluate m {data}",
    ), "plain")  # fmt: skip


def refused(files: Mapping[str, Content], target: str) -> Case:
    """A table that is not fit, through inspect and retrain."""
    options = f"t.csv --target {target}"
    return Case((files, f"inspect {options}", f"retrain linear-regression --name m --data {options}"))


H = houses()
TEXT = as_csv(H)
LINES = TEXT.splitlines()


def lines(change: Callable[[int, str], str], end: str = "\n") -> str:
    """The houses' lines, each changed; the header is number 0."""
    return "".join(change(number, line) + end for number, line in enumerate(LINES))


def column(made: Callable[[int], Any], name: str = "extra") -> Table:
    """The houses with a column more."""
    return H | {name: [made(row) for row in range(len(H["price"]))]}


def every(step: int, value: Any, other: Callable[[int], Any]) -> Callable[[int], Any]:
    """A value in every so many rows, something else in the others."""
    return lambda row: value if row % step == 0 else other(row)


def tenths(row: int) -> float:
    """A number that looks drawn."""
    return (row * 37 % 101) / 10


def wide(*names: str) -> Table:
    """The houses with several columns more, no two alike."""
    return H | {
        name: [VALUES[name](row + 11 * at * name.startswith("missing")) for row in range(240)]
        for at, name in enumerate(names)
    }


def typed(*names: str) -> pa.Table:
    """The houses with columns of types."""
    return pa.table(H | {name: pa.array([TYPES[name][1](row) for row in range(240)], TYPES[name][0]) for name in names})


FIRST = datetime(2024, 1, 1)
CSV: dict[str, Content] = {
    "plain": TEXT,
    "semicolon": as_csv(H, ";"),
    "tab": as_csv(H, "\t"),
    "byte-order-mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "crlf": as_csv(H, end="\r\n"),
    "cr": as_csv(H, end="\r"),
    "quoted": as_csv(H, quoting=csv.QUOTE_ALL),
    "sep-line": "sep=;\n" + as_csv(H, ";"),
    "sep-line-alone": "sep=;\n",
    "sep-line-and-blanks": "sep=;\n\n\n",
    "windows-1252": TEXT.encode("cp1252"),
    "utf-16": TEXT.encode("utf-16"),
    "not-utf-8-late": TEXT.encode()[:-9] + b"\xe9\n" + TEXT.encode()[-9:],
    "newlines-in-quotes": as_csv(later(H, {"city": lambda each: each and f'{each}\nold, "town"'})),
    "quote-in-the-middle": lines(lambda n, line: line.replace("Rom", 'Ro"m')),
    "quote-unclosed": lines(lambda n, line: line.replace("Rom", '"Rom') if n == 100 else line),
    "blank-lines": lines(lambda n, line: line + "\n" * (n % 50 == 7)) + "\n\n",
    "no-last-newline": TEXT.rstrip("\n"),
    "trailing-delimiter": lines(lambda n, line: line + ","),
    "header-with-spaces": TEXT.replace("area,city", " area , city "),
    "header-unnamed": TEXT.replace("area,city", "area,"),
    "header-twice": TEXT.replace("area,city,age", "area,city,area"),
    "header-alone": LINES[0] + "\n",
    "header-missing": "\n".join(LINES[1:]),
    "header-unicode": TEXT.replace("area", "fla\u0308che").replace("garden", "庭 🏡"),
    "empty": "",
    "one-column": "price\n" + "\n".join(map(str, H["price"])),
    "ragged-one": lines(lambda n, line: line.rpartition(",")[0] if n == 60 else line),
    "ragged-many": lines(lambda n, line: line + ",9,9" if n % 9 == 5 else line),
    "nul": lines(lambda n, line: line.replace("Rom", "R\0m")),
    "binary": bytes(range(256)) * 40,
    "spaces-around": lines(lambda n, line: line.replace(",", " , ") if n else line),
    "row-names-as-r": lines(lambda n, line: f"{n},{line}" if n else line),
}
CSV_MORE: dict[str, Content] = {
    "row-of-3-megabytes": as_csv(column(every(999, "x" * 3_000_000, lambda row: f"w{row % 3}"))),
    "unnamed-index": as_csv({"": list(range(240))} | H),
    "index-as-pandas": as_csv({"Unnamed: 0": list(range(240))} | H),
    "decimal-comma": as_csv(later(H, {"area": lambda x: str(x).replace(".", ",")}), ";"),
    "thousands": as_csv(column(lambda row: f"{1000 + row * 37:,}")),
    "currency": as_csv(column(lambda row: f"${tenths(row)}")),
    "per-cent": as_csv(column(lambda row: f"{tenths(row)}%")),
}
VALUES: dict[str, Callable[[int], Any]] = {
    **{f"missing-{name}": every(7, word, tenths) for name, word in {
        "NA": "NA", "N-A": "N/A", "NaN": "NaN", "nan": "nan", "null": "null", "NULL": "NULL", "none": "None", "dash": "-",
        "question": "?", "spaces": "  ", "n-a": "n/a", "hash": "#N/A", "minus-999": -999,
    }.items()},
    "missing-words-in-text": every(5, "NA", lambda row: ["nan", "null", "x", "None"][row % 4]),
    "missing-all": lambda row: None,
    "missing-most": every(20, 3.5, lambda row: None),
    "true-false-capital": lambda row: ["True", "False"][row * 7 % 3 == 0],
    "TRUE-FALSE": lambda row: ["TRUE", "FALSE"][row * 7 % 3 == 0],
    "yes-no": lambda row: ["yes", "no"][row * 7 % 3 == 0],
    "t-f": lambda row: ["t", "f"][row * 7 % 3 == 0],
    "zero-one": lambda row: int(row * 7 % 3 == 0),
    "true-and-1": lambda row: ["true", "1", "false", "0"][row * 7 % 4],
    "true-and-missing": every(6, None, lambda row: row % 4 == 1),
    "beyond-2-53": lambda row: 2**53 + 2 * row + 1,
    "beyond-2-64": lambda row: 2**64 + row * 10**15,
    "small-and-large": lambda row: f"{tenths(row)}e{row % 600 - 300}",
    "infinite": every(50, "inf", tenths),
    "minus-infinity": every(50, "-Infinity", tenths),
    "exponents": lambda row: f"{tenths(row)}E+2",
    "plus": lambda row: f"+{tenths(row)}",
    "hexadecimal": lambda row: hex(row),
    "underscores": lambda row: f"1_{row:03d}",
    "no-break-space": lambda row: f"{tenths(row)}\u00a0",
    "full-width": lambda row: "".join(chr(ord(each) + 0xFEE0) for each in str(row % 50)),
    "leading-zeros": lambda row: f"{row % 40:05d}",
    "minus-zero": lambda row: ["-0.0", "0.0"][row % 2],
    "text-among-numbers": every(100, "12 m", tenths),
    "numbers-among-text": every(3, 5, lambda row: f"w{row % 3}"),
    "whole-and-decimal": lambda row: row % 9 if row % 2 else f"{row % 9}.0",
    "id-like": lambda row: f"c-{row * 7919 % 240:04d}",
    "id-whole": lambda row: row * 7919 % 240,
    "half-id-like": lambda row: f"c-{row}" if row % 9 else "common",
    "rare-levels": lambda row: f"l{min(row % 97 // 12, 6)}" if row % 30 else f"rare {row}",
    "many-levels": lambda row: f"l{row % 80:02d}",
    "constant": lambda row: 7,
    "constant-text": lambda row: "same",
    "normal-forms": lambda row: ["Ko\u0308ln", "Köln", "KÖLN"][row % 3],
    "case-and-space": lambda row: ["Rom", "rom", "Rom ", " Rom"][row % 4],
    "emoji-and-markup": lambda row: ["🏠", "<b>x</b>", "[/]", "=1+1"][row % 4],
    "control": lambda row: ["a\tb", "a\x1b[31mb", "a\x7fb"][row % 3],
    "long-text": lambda row: "x" * 5000 + str(row % 3),
    "date": lambda row: (FIRST + timedelta(row * 5)).date(),
    "date-and-missing": every(7, None, lambda row: (FIRST + timedelta(row * 5)).date()),
    "time": lambda row: (FIRST + timedelta(hours=row * 7)).isoformat(),
    "time-with-zone": lambda row: (FIRST + timedelta(hours=row * 7)).isoformat() + "+02:00",
    "day-month-year": lambda row: f"{FIRST + timedelta(row * 5):%d.%m.%Y}",
    "year": lambda row: 1900 + row % 120,
    "duplicate": lambda row: H["area"][row],
    "leak": lambda row: H["price"][row] * 3 + 1,
    "offset": lambda row: 1_700_000_000 + row * 7919 % 97,
    "collinear": lambda row: round(2 * H["area"][row] + 3 * (H["age"][row] or 0), 1),
}  # fmt: skip
WIDE: dict[str, str] = {
    "missing": "missing-NA missing-N-A missing-NaN missing-null true-and-missing missing-all missing-most",
    "missing-nan": "missing-nan",
    "missing-otherwise": "missing-NULL missing-none missing-dash missing-question missing-spaces missing-n-a missing-hash missing-minus-999",
    "missing-words-in-text": "missing-words-in-text",
    "booleans": "true-false-capital TRUE-FALSE yes-no t-f zero-one true-and-1",
    "numbers": "beyond-2-53 beyond-2-64 exponents plus whole-and-decimal minus-zero year small-and-large",
    "numbers-odd": "hexadecimal underscores full-width leading-zeros",
    "no-break-space": "no-break-space",
    "words": "numbers-among-text rare-levels many-levels normal-forms case-and-space emoji-and-markup control long-text",
    "ids": "id-like id-whole half-id-like",
    "warned": "constant constant-text duplicate leak offset collinear",
    "dates": "date date-and-missing time time-with-zone day-month-year",
    "faults": "infinite minus-infinity text-among-numbers",
}
TYPES: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "int8": (pa.int8(), lambda row: row % 100 - 50),
    "uint64": (pa.uint64(), lambda row: 2**64 - 1 - row),
    "float16": (pa.float16(), lambda row: np.float16(tenths(row))),
    "decimal": (pa.decimal128(12, 2), lambda row: Decimal(f"{row}.25")),
    "bool": (pa.bool_(), every(8, None, lambda row: row % 3 == 0)),
    "date32": (pa.date32(), lambda row: date(2024, 1, 1) + timedelta(row)),
    "timestamp": (pa.timestamp("ns", "UTC"), lambda row: FIRST + timedelta(hours=row)),
    "time": (pa.time32("s"), lambda row: row * 60),
    "duration": (pa.duration("s"), lambda row: row * 60),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), lambda row: f"l{row % 4}"),
    "large-string": (pa.large_string(), lambda row: f"l{row % 4}"),
    "binary": (pa.binary(), lambda row: b"l%d" % (row % 4)),
    "null": (pa.null(), lambda row: None),
    "nan": (pa.float64(), every(7, float("nan"), tenths)),
    "text-missing-words": (pa.string(), every(7, "NA", lambda row: ["nan", "", "x"][row % 3])),
    "list": (pa.list_(pa.int64()), lambda row: [row, 1]),
    "struct": (pa.struct([("a", pa.int64())]), lambda row: {"a": row}),
    "numbers-as-text": (pa.string(), lambda row: str(tenths(row))),
}
TYPED: dict[str, str] = {
    "numbers": "int8 uint64 float16 decimal bool nan null", "dates": "date32 timestamp time duration",
    "text": "dictionary large-string text-missing-words numbers-as-text", "nested": "binary list struct",
}  # fmt: skip
JSON = as_bytes(H, "t.jsonl").decode()
OBJECTS = [json.loads(line) for line in JSON.splitlines()]


def json_lines(change: Callable[[int, dict[str, Any]], Any]) -> str:
    """The houses as JSON lines, each changed."""
    return "".join(json.dumps(change(row, dict(each)), ensure_ascii=False) + "\n" for row, each in enumerate(OBJECTS))


def without(each: dict[str, Any], *names: str) -> dict[str, Any]:
    """An object without some of its keys."""
    return {name: value for name, value in each.items() if name not in names}


def parts(table: Table, count: int) -> list[Table]:
    """A table cut into so many."""
    size = -(-len(next(iter(table.values()))) // count)
    return [{name: values[at * size : (at + 1) * size] for name, values in table.items()} for at in range(count)]


A, B, C = parts(H, 3)
MORE = {"note": ["x", "y"] * 40}


def empty_group(path: Path) -> None:
    """Parquet with a row group of no rows in the middle."""
    table = pa.table(H)
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table[:100], table[:0], table[100:]):
            writer.write_table(part)


def cut(content: bytes) -> bytes:
    """The first two thirds."""
    return content[: len(content) * 2 // 3]


PACKED = gzip.compress(TEXT.encode(), mtime=0)
FILES: dict[str, tuple[dict[str, Any], str]] = {
    "gz": ({"t.csv.gz": PACKED}, "t.csv.gz"),
    "gz-cut": ({"t.csv.gz": cut(PACKED)}, "t.csv.gz"),
    "gz-garbage-behind": ({"t.csv.gz": PACKED + b"garbage" * 9}, "t.csv.gz"),
    "gz-wrong-sum": ({"t.csv.gz": PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:]}, "t.csv.gz"),
    "gz-two-members": ({"t.csv.gz": PACKED + gzip.compress("\n".join(LINES[1:9]).encode(), mtime=0)}, "t.csv.gz"),
    "tsv": ({"t.tsv": H}, "t.tsv"),
    "txt": ({"t.txt": TEXT}, "t.txt"),
    "parquet": ({"t.parquet": H}, "t.parquet"),
    "parquet-cut": ({"t.parquet": cut(as_bytes(H, "t.parquet"))}, "t.parquet"),
    "parquet-empty-group": ({"t.parquet": empty_group}, "t.parquet"),
    "parquet-not-utf-8": (
        {
            "t.parquet": lambda path: pq.write_table(
                pa.table(H | {"city": pa.array([b"l\xff%d" % (row % 4) for row in range(240)]).view(pa.string())}), path
            )
        },
        "t.parquet",
    ),
    "parquet-no-rows": ({"t.parquet": {name: each[:0] for name, each in H.items()}}, "t.parquet"),
    "feather": ({"t.feather": H}, "t.feather"),
    "xlsx": ({"t.xlsx": b"PK\3\4" + bytes(99)}, "t.xlsx"),
    "jsonl": ({"t.jsonl": H}, "t.jsonl"),
    "ndjson-gz": ({"t.ndjson.gz": H}, "t.ndjson.gz"),
    "json-array": ({"t.json": json.dumps(OBJECTS)}, "t.json"),
    "jsonl-keys-missing": (
        {"t.jsonl": json_lines(lambda row, each: without(each, *["age"] * (row % 3 == 0)))},
        "t.jsonl",
    ),
    "jsonl-key-late": (
        {"t.jsonl": json_lines(lambda row, each: each | {"late": row} if row > 200 else each)},
        "t.jsonl",
    ),
    "jsonl-mixed": (
        {"t.jsonl": json_lines(lambda row, each: each | {"area": str(each["area"])} if row % 9 == 0 else each)},
        "t.jsonl",
    ),
    "jsonl-nested": ({"t.jsonl": json_lines(lambda row, each: each | {"deep": {"a": [row]}})}, "t.jsonl"),
    "jsonl-null-line": ({"t.jsonl": JSON.replace("\n", "\nnull\n", 1)}, "t.jsonl"),
    "jsonl-null-first": ({"t.jsonl": "null\n" + JSON}, "t.jsonl"),
    "jsonl-nested-deep": ({"t.jsonl": JSON + '{"area": ' + "[" * 10_000 + "]" * 10_000 + "}\n"}, "t.jsonl"),
    "jsonl-broken-line": ({"t.jsonl": JSON + '{"area": 3,\n'}, "t.jsonl"),
    "jsonl-key-twice": ({"t.jsonl": JSON.replace('{"area"', '{"area": 1, "area"')}, "t.jsonl"),
    "jsonl-NaN": ({"t.jsonl": JSON.replace('"age": null', '"age": NaN')}, "t.jsonl"),
    "jsonl-not-utf-8": ({"t.jsonl": JSON.encode("latin-1", errors="replace")}, "t.jsonl"),
    "folder": ({"d/a.csv": A, "d/b.csv": B, "d/c.csv": C}, "d"),
    "folder-deep": ({"d/a.csv": A, "d/x/b.csv": B, "d/x/y/c.csv": C}, "d"),
    "folder-of-kinds": ({"d/a.csv": A, "d/b.parquet": B, "d/c.jsonl": C}, "d"),
    "folder-with-readme": ({"d/a.csv": H, "d/README.md": "# of\n", "d/.hidden.csv": "x"}, "d"),
    "folder-half-written": ({"d/a.csv": H, "d/b.csv.part": "x", "d/b.csv.tmp": "x"}, "d"),
    "folder-other-columns": ({"d/a.csv": A, "d/b.csv": B | MORE}, "d"),
    "folder-other-order": ({"d/a.csv": A, "d/b.csv": dict(reversed(B.items()))}, "d"),
    "folder-kinds-differ": ({"d/a.csv": A, "d/b.csv": later(B, {"age": lambda _: "old"})}, "d"),
    "folder-whole-then-decimal": ({"d/a.csv": later(A, {"area": int}), "d/b.csv": B}, "d"),
    "folder-one-empty": ({"d/a.csv": H, "d/b.csv": ""}, "d"),
    "folder-one-header": ({"d/a.csv": H, "d/b.csv": LINES[0] + "\n"}, "d"),
    "folder-empty": ({"d/.keep": "x"}, "d"),
    "glob": ({"d/a1.csv": A, "d/a2.csv": B, "d/b.csv": C}, "'d/a*.csv'"),
    "hive": ({"d/country=DE/a.csv": A, "d/country=IT/b.csv": B}, "d"),
    "hive-parquet": ({"d/year=2024/a.parquet": A, "d/year=2025/b.parquet": B}, "d"),
    "hive-empty-key": ({"d/=x/a.csv": H}, "d"),
    "name-odd": ({"d/a b[1]ü'.csv": H}, '"d/a b[1]ü\'.csv"'),
}
TWICE = {name: each * 3 for name, each in later(H, {"price": lambda x: x}).items()}
FEW: Table = {
    "a": [str(n % 3) + "x" for n in range(200)],
    "b": [n % 2 == 0 for n in range(200)],
    "price": [n % 7 + 3 * (n % 3) for n in range(200)],
}
DAYS = column(lambda row: (FIRST + timedelta(row // 4)).date(), "day")
SHOPS = column(lambda row: f"shop {row * 7919 % 37}", "shop")
SIDES: Table = column(lambda row: ["train", "TEST", "Validation", "train"][row * 31 % 4], "side")
OPTIONS: dict[str, tuple[Table, str]] = {
    "split-copies": (TWICE, ""),
    "split-few-distinct": (FEW, ""),
    "split-by": (SHOPS, "--split-by shop"),
    "split-by-missing": (column(every(9, None, lambda row: f"s{row % 30}"), "shop"), "--split-by shop"),
    "split-by-few": (column(lambda row: f"s{row % 4}", "shop"), "--split-by shop"),
    "time-column": (DAYS, "--time-column day"),
    "time-of-numbers": (column(lambda row: row // 3, "day"), "--time-column day"),
    "time-of-words": (column(lambda row: f"w{row % 9}", "day"), "--time-column day"),
    "time-missing": (column(every(50, None, lambda row: (FIRST + timedelta(row)).date()), "day"), "--time-column day"),
    "time-before-1684": (column(lambda row: f"{1500 + row}-01-01", "day"), "--time-column day"),
    "window": (DAYS, "--time-column day --window 40d"),
    "window-alone": (DAYS, "--window 40d"),
    "split-column": (SIDES, "--split-column side"),
    "split-column-boolean": (column(lambda row: row % 4 == 0, "side"), "--split-column side"),
    "split-column-other-words": (column(lambda row: f"s{row % 3}", "side"), "--split-column side"),
    "split-two-ways": (DAYS | SHOPS, "--split-by shop --time-column day"),
    "test-tiny": (H, "--test 0.01"),
    "test-1": (H, "--test 1"),
    "features": (H, "--features area,city"),
    "features-unknown": (H, "--features area,floors"),
    "ignore": (H, "--ignore age,garden"),
    "ignore-unknown": (H, "--ignore floors"),
    "ignore-target": (H, "--ignore price"),
    "ignore-all": (H, "--ignore area,city,age,garden"),
    "ignore-newline": (H, "--ignore 'age\ngarden'"),
    "category": (later(H, {"age": lambda age: age and age // 10}), "--category age"),
    "category-text-among-numbers": (column(every(100, "12 m", lambda row: row % 9)), "--category extra"),
    "category-id": (column(lambda row: f"c-{row}"), "--category extra"),
    "category-unknown": (H, "--category floors"),
    "category-beyond-2-53": (column(lambda row: 2**53 + row % 5), "--category extra"),
    "weight-decay": (H, "--weight-decay 0.1"),
    "weight-decay-auto": (H, "--weight-decay auto"),
    "class-weight-of-numbers": (H, "--class-weight balanced"),
}
FITTED: dict[str, tuple[Table, str]] = {  # options that inspect has not
    "loss-huber": (later(H, {"price": lambda x: x * (20 if x > 500 else 1)}), "--loss huber"),
    "epochs": (H, "--epochs 3"),
    "steps": (H, "--epochs 20 --batch-size 32 --lr 0.05 --schedule cosine --seed 7"),
    "scratch": (H, "--implementation scratch"),
    "validation": (H, "--validation 0.2 --epochs 30 --patience 2"),
    "dropout-of-numbers": (H, "--dropout 0.5"),
    "cuda": (H, "--device cuda"),
    "gain-beyond": (H, "--min-gain 1e9"),
    "no-publish": (H, "--no-publish"),
    "epochs-0": (H, "--epochs 0"),
    "lr-diverges": (H, "--epochs 50 --batch-size 10 --lr 1000"),
}
K = kinds()
CLASSES: dict[str, tuple[Table, str]] = {
    "three": (K, ""),
    "two": (kinds(classes=("no", "yes")), ""),
    "whole": (kinds(classes=(1, 2, 10)), ""),
    "boolean": (kinds(classes=(False, True)), ""),
    "odd-names": (kinds(classes=("a b", "ü\n", "label_name")), ""),
    "missing-some": (K | {"kind": [None if n % 6 == 0 else each for n, each in enumerate(K["kind"])]}, ""),
    "one-row": (K | {"kind": ["castle", *K["kind"][1:]]}, ""),
    "one-class": (kinds(classes=("flat",)), ""),
    "many": (K | {"kind": [f"k{int(area) // 12:02d}" for area in K["area"]]}, ""),
    "id-like": (K | {"kind": [f"k{n}" for n in range(300)]}, ""),
    "balanced": (
        kinds(600, classes=("no", "yes")) | {"kind": ["yes" if a > 178 else "no" for a in houses(600)["area"]]},
        "--class-weight balanced",
    ),
    "weight-decay-auto": (K, "--weight-decay auto"),
    "separable": (K | {"kind": ["big" if a > 120 else "small" for a in K["area"]]}, ""),
    "clash": (K | {"label": K["area"], "probability_flat": K["age"]}, ""),
}
TARGETS: dict[str, tuple[Table, str]] = {
    "not-there": (H, "cost"),
    "constant": (H | {"price": [5] * 240}, "price"),
    "infinite": (later(H, {"price": lambda x: "inf" if x > 540 else x}), "price"),
    "words": (H, "city"),
    "boolean": (H, "garden"),
    "missing-all": (H | {"price": [None] * 240}, "price"),
    "words-among-numbers": (later(H, {"price": lambda x: "sold" if x > 540 else x}), "price"),
    "dates": (DAYS, "day"),
    "rows-25": ({name: each[:25] for name, each in H.items()}, "price"),
    "rows-60": ({name: each[:60] for name, each in H.items()}, "price"),
    "row-1": ({name: each[:1] for name, each in H.items()}, "price"),
    "columns-2001": ({f"x{n}": [0.5, 1.5] * 20 for n in range(2001)} | {"price": list(range(40))}, "price"),
    "levels-10001": ({"x": [f"l{n // 2}" for n in range(20_002)], "price": list(range(20_002))}, "price"),
    "several-faults": (
        H | {"age": ["x y", *H["age"][1:]], "price": [5] * 240, "city": [f"{n}" for n in range(240)]},
        "price",
    ),
    "noise": (H | {"price": [n * 7919 % 239 for n in range(240)]}, "price"),
}
CASES: dict[str, Case] = {}
CASES |= {f"csv/{name}": same({"t.csv": content}) for name, content in CSV.items()}
CASES |= {f"csv/{name}": trained({"t.csv": content}) for name, content in CSV_MORE.items()}
CASES |= {f"value/{name}": trained({"t.csv": wide(*names.split())}) for name, names in WIDE.items()}
CASES |= {
    f"type/{name}": trained({"t.parquet": partial(pq.write_table, typed(*names.split()))}, "t.parquet")
    for name, names in TYPED.items()
}
CASES |= {
    "type/feather": trained(
        {"t.feather": partial(pyarrow.feather.write_feather, typed("int8", "bool", "date32", "dictionary", "nan"))},
        "t.feather",
    )
}
CASES |= {f"file/{name}": same(files, data) for name, (files, data) in FILES.items()}
CASES |= {f"file/{name}": trained(*FILES[name]) for name in ("hive", "hive-parquet", "jsonl-key-late", "jsonl-nested")}
CASES |= {f"option/{name}": trained({"t.csv": table}, options=options) for name, (table, options) in OPTIONS.items()}
CASES |= {f"fit/{name}": trained({"t.csv": table}, more=options) for name, (table, options) in FITTED.items()}
CASES |= {
    f"class/{name}": trained({"t.csv": table}, target="kind", options=options)
    for name, (table, options) in CLASSES.items()
}
CASES |= {f"target/{name}": refused({"t.csv": table}, target) for name, (table, target) in TARGETS.items()}
CASES |= {
    f"set/{name}": trained({"t.csv": partial(write_bundled, name)}, target="target")
    for name in ("iris", "wine", "breast_cancer", "digits")
}
CASES |= {"set/diabetes": Case((
    {"t.parquet": partial(write_bundled, "diabetes")},
    "inspect t.parquet --target target", "retrain linear-regression --name m --data t.parquet --target target",
    "predict t.parquet --name m --output out", "evaluate m t.parquet", "evaluate m t.parquet --unseen", "show m",
))}  # fmt: skip
CASES |= {"set/flights": Case((
    {"t.csv": partial(write_bundled, "flights")},
    "inspect t.csv --target arr_delay --category month,day", "retrain linear-regression --name m --data t.csv --target arr_delay --split-by day --ignore month --no-predict",
    "retrain linear-regression --name m --data t.csv --target arr_delay --ignore month,day --no-predict",
    "predict t.csv --name m --output out --id-column carrier,dest", "evaluate m t.csv",
))}  # fmt: skip

DAY_1, DAY_2 = houses(1000, 1), houses(300, 2)
KINDS_1, KINDS_2 = kinds(1000, 1), kinds(300, 2)
TRAIN = "retrain linear-regression --name m --data data --target price --no-predict"
PETS = {"cat": 40, "dog": 40, "owl": 40}
TRAIN_PETS = "retrain softmax-regression --name m --data pets --no-predict"
BASES: dict[str, tuple[Step, ...]] = {
    "plain": ({"data.csv": H}, "retrain linear-regression --name m --data data.csv --target price --no-predict"),
    "houses": ({"data/day1.csv": DAY_1}, TRAIN),
    "kinds": ({"data/day1.csv": KINDS_1}, "retrain --name m --data data --target kind --no-predict"),
    "dated": (
        {"data/day1.csv": DAY_1 | {"day": [(FIRST + timedelta(n // 20)).date() for n in range(1000)]}},
        f"{TRAIN} --time-column day",
    ),
    "two": (
        {"data/day1.csv": DAY_1}, TRAIN, {"data/day2.csv": DAY_2}, "retrain m --no-predict",
        {"new.csv": houses(50, 5)}, "predict new.csv --name m --output out",
    ),
    "pets": ({"pets": folders(PETS)}, TRAIN_PETS),
    "pets-rgb": ({"pets": folders(PETS, channels=3)}, f"{TRAIN_PETS} --side 6"),
}  # fmt: skip


def night(files: Mapping[str, Content], options: str = "", data: str = "data") -> Case:
    """A second night, with more data or others: inspect beside the kept name, then retrain."""
    inspected = " ".join(each for each in options.split() if each not in ("--force", "--no-publish"))
    return Case(
        (
            files,
            f"inspect {data} --name m {inspected}".strip(),
            f"retrain m --data {data} --no-predict {options}".strip(),
            "models m",
        ),
        "houses",
    )


def grown(**change: Callable[[Any], Any]) -> dict[str, Content]:
    """A second day whose columns have other values."""
    return {"data/day2.csv": later(DAY_2, change)}


SHUFFLED = {name: [each[n * 7 % 1000] for n in range(1000)] for name, each in DAY_1.items()}
NIGHTS: dict[str, Case] = {
    "untouched": night({}),
    "touched": night({"data/day1.csv": DAY_1}),
    "other-order": night({"data/day1.csv": SHUFFLED}),
    "other-format": night({"d/day1.parquet": SHUFFLED}, data="d"),
    "grown": night(grown()),
    "grown-twice": Case((grown(), "retrain m --data data", {"data/day3.csv": houses(300, 3)}, "retrain m", "models m", "history m", "show m"), "houses"),
    "few-new-rows": night(grown(), "--min-new-rows 500"),
    "no-publish": night(grown(), "--no-publish"),
    "new-column": night({"data/day2.csv": DAY_2 | {"floors": [2] * 300}}),
    "new-column-ignored": night({"data/day2.csv": DAY_2 | {"floors": [2] * 300}}, "--ignore floors"),
    "column-gone": night({"d/day1.csv": {name: each for name, each in DAY_1.items() if name != "age"}}, data="d"),
    "number-to-text": night(grown(age=lambda x: "old")),
    "text-to-number": night({"d/day1.csv": later(DAY_1, {"city": lambda x: x and len(x)})}, data="d"),
    "boolean-to-words": night(grown(garden=lambda x: "yes" if x else "no")),
    "new-level": night(grown(city=lambda x: "Bonn" if x == "Oslo" else x)),
    "turned-missing": night(grown(age=lambda x: None)),
    "turned-missing-accepted": night(grown(age=lambda x: None), "--accept-data"),
    "never-missing": night(grown(area=lambda x: None if x > 150 else x)),
    "other-scale": night(grown(area=lambda x: x * 1000)),
    "other-scale-accepted": night(grown(area=lambda x: x * 1000), "--accept-data"),
    "turned-constant": night({"d/day1.csv": later(DAY_1, {"age": lambda x: 5})}, data="d"),
    "fewer-rows": night({"d/day1.csv": houses(400, 1)}, data="d"),
    "drift": night({"data/day2.csv": later(houses(1200, 6), {"area": lambda x: x + 90, "price": lambda x: x + 225})}),
    "worse": night(grown(price=lambda x: 700 - x)),
    "new-recipe": night(grown(), "--new-recipe --test 0.3"),
    "features-other": night(grown(), "--features area"),
    "other-target": night({}, "--target age"),
    "other-kind": night({"p": folders(PETS)}, data="p"),
    "data-gone": night({}, data="nowhere"),
    "frozen": Case((grown(), "freeze m --reason 'holidays'", "retrain m --data data --no-predict", "unfreeze m", "retrain m --no-predict", "history m"), "houses"),
    "rolled-back": Case(("rollback m --reason bad", "models", "retrain m --no-predict", {"data/day3.csv": houses(300, 3)}, "retrain m --data data --no-predict", "unfreeze m", "retrain m --data data --no-predict", "promote m 2", "rollback m", "rollback m", "history m"), "two"),
    "pruned": Case(("prune m --keep 1", "promote m 1", "prune m --keep 1", "models m", "maintain", "verify m"), "two"),
    "dated-later": Case(({"data/day2.csv": DAY_2 | {"day": [(FIRST + timedelta(50 + n // 20)).date() for n in range(300)]}}, "retrain m --data data --no-predict", "evaluate m data/day2.csv", "retrain m --window 30d --no-predict"), "dated"),
    "class-new": Case(({"data/day2.csv": later(KINDS_2, {"kind": lambda x: x.replace("villa", "castle")})}, "inspect data --name m", "retrain m --data data --no-predict"), "kinds"),
    "class-gone": Case(({"d/day1.csv": later(KINDS_1, {"kind": lambda x: x.replace("villa", "house")})}, "inspect d --name m", "retrain m --data d --no-predict"), "kinds"),
    "class-grown": Case(({"data/day2.csv": KINDS_2}, "retrain m --data data", "evaluate m data/day2.csv", "models m", "show m"), "kinds"),
}  # fmt: skip
NEW = houses(240, 9)
PREDICT = "predict {} --name m --output out {}"


def predicted(content: Content, options: str = "", name: str = "n.csv", base: str = "houses") -> Case:
    """New rows through predict, and through evaluate where they can be labelled ones."""
    return Case(({name: content}, PREDICT.format(name, options).strip(), f"evaluate m {name}"), base)


def changed(step: int, **values: Any) -> Table:
    """New rows, of which every so many have other values."""
    return NEW | {
        name: [value if n % step == 0 else each for n, each in enumerate(NEW[name])] for name, value in values.items()
    }


ROWS = np.column_stack([NEW["area"], np.arange(240) % 4, np.arange(240) % 90, np.arange(240) % 2]).astype(np.float32)
PREDICTED: dict[str, Case] = {
    "columns-more-and-reversed": predicted(dict(reversed((NEW | {"id": list(range(240)), "note": ["ü\n\"x\""] * 240}).items())), "--id-column id,note"),
    "column-missing": predicted({name: each for name, each in NEW.items() if name != "age"}),
    "column-twice": predicted(as_csv(NEW).replace("area,city", "area,area")),
    "target-missing": predicted({name: each for name, each in NEW.items() if name != "price"}),
    "target-some": predicted(changed(3, price=None)),
    "levels-unknown-few": predicted(changed(150, city="Bonn")),
    "levels-unknown-many": predicted(changed(5, city="Bonn")),
    "levels-unknown-average": predicted(changed(5, city="Bonn"), "--unknown average"),
    "levels-of-other-forms": predicted(NEW | {"city": [["Ko\u0308ln", "rom", "Rom ", " Oslo"][n % 4] for n in range(240)]}, "--max-rejects 240"),
    "missing-unseen": predicted(changed(150, area=None)),
    "missing-unseen-average": predicted(changed(5, area=None), "--unknown average"),
    "missing-words": predicted(NEW | {"age": [["NA", "N/A", "NaN", "nan", "null", "NULL", "", "None", "-"][n % 9] for n in range(240)]}, "--max-rejects 240"),
    "text-in-numbers": predicted(changed(150, area="big")),
    "numbers-oddly-written": predicted(NEW | {"area": [["1e2", "+99.5", "1,000", "0x10", "99 ", "1_0", "inf", "99\u00a0"][n % 8] for n in range(240)]}, "--max-rejects 240"),
    "booleans-oddly-written": predicted(NEW | {"garden": [["true", "True", "TRUE", "1", "0", "yes", "t", ""][n % 8] for n in range(240)]}, "--max-rejects 240"),
    "ragged": predicted(as_csv(NEW).replace("\n1", "\n1,1", 2)),
    "quote-unclosed": predicted(as_csv(NEW).replace("Rom", '"Rom', 1)),
    "nul": predicted(as_csv(NEW).replace("Rom", "R\0m", 2)),
    "not-utf-8": predicted(as_csv(NEW).encode("cp1252")),
    "empty": predicted(""),
    "parquet": predicted(NEW, name="n.parquet"),
    "parquet-other-types": predicted(lambda path: pq.write_table(pa.table(NEW | {"area": pa.array(NEW["area"], pa.float32()), "age": pa.array(NEW["age"], pa.int8()), "city": pa.array(NEW["city"]).dictionary_encode(), "garden": pa.array([int(each) for each in NEW["garden"]])}), path), name="n.parquet"),
    "parquet-text-numbers": predicted(lambda path: pq.write_table(pa.table(NEW | {"area": list(map(str, NEW["area"]))}), path), name="n.parquet"),
    "jsonl": predicted(NEW, name="n.jsonl"),
    "jsonl-null": predicted(as_bytes(NEW, "n.jsonl") + b"null\n", name="n.jsonl"),
    "feather": predicted(NEW, name="n.feather"),
    "gz-cut": predicted(gzip.compress(as_csv(NEW).encode(), mtime=0)[:-900], name="n.csv.gz"),
    "npy": predicted(npy(ROWS), name="n.npy"),
    "npy-float64-fortran": predicted(npy(np.asfortranarray(ROWS.astype(">f8"))), name="n.npy"),
    "npy-width": predicted(npy(ROWS[:, :3]), name="n.npy"),
    "npy-codes-unknown": predicted(npy(np.where(np.arange(240)[:, None] == 5, -1, ROWS)), "--max-rejects 1", name="n.npy"),
    "npy-objects": predicted(lambda path: np.save(path, np.array([{"a": 1}] * 3, object)), name="n.npy"),
    "folder": Case(({"d/a.csv": houses(40, 4), "d/b.parquet": houses(40, 5), "d/c.jsonl": houses(40, 6), "d/README.md": "#"}, PREDICT.format("d", ""), "evaluate m d"), "houses"),
    "hive": Case(({"d/year=2024/a.csv": houses(40, 4), "d/year=2025/a.csv": houses(40, 5)}, PREDICT.format("d", ""), "evaluate m d"), "houses"),
    "glob": Case(({"d/a.csv": houses(40, 4), "d/b.csv": houses(40, 5)}, PREDICT.format("'d/*.csv'", "--shard-rows 30"), "evaluate m 'd/*.csv'"), "houses"),
    "test-split": Case(("predict --name m", "evaluate m", "predict --name m --version 1 --output out", "predict --name m --version 9", "evaluate m --version 9"), "houses"),
    "same-again": Case(({"n.csv": NEW}, PREDICT.format("n.csv", ""), PREDICT.format("n.csv", ""), PREDICT.format("n.csv", "--restart"), {"n.csv": houses(30, 8)}, PREDICT.format("n.csv", ""), PREDICT.format("n.csv", "--restart")), "houses"),
    "outputs": Case(({"n.csv": NEW, "file": "x", "full/x.txt": "x"}, "predict n.csv --name m --output file", "predict n.csv --name m --output full", "predict n.csv --name m --output s3://b/x", "predict n.csv --name m --output out.csv", "predict n.csv --name m --output file:///x"), "houses"),
    "misused": Case(({"n.csv": NEW}, "predict nowhere.csv --name m", "predict '' --name m", "predict n.csv --name m --id-column nope", "predict n.csv --name m --id-column 'a\nb'", "predict n.csv --name m --write label", "predict n.csv --name m --columns area,city", "predict n.csv --name m --device cuda", "predict https://127.0.0.1:9/n.csv --name m", "evaluate m ''", "evaluate m nowhere.csv", "evaluate m n.csv --time-column nope", "text predict n.csv --name m --output out --quiet"), "houses"),
    "by-period": Case(({"n.csv": NEW | {"day": [(FIRST + timedelta(n)).date() for n in range(240)]}}, "evaluate m n.csv --time-column day", "evaluate m data/day1.csv --unseen"), "houses"),
    "classes": predicted(kinds(200, 9), base="kinds"),
    "classes-label-alone": predicted(kinds(200, 9) | {"id": list(range(200))}, "--write label --id-column id", base="kinds"),
    "classes-new": predicted(later(kinds(200, 9), {"kind": lambda x: x.replace("villa", "castle")}), base="kinds"),
    "classes-missing": predicted(kinds(200, 9) | {"kind": [None] * 200}, base="kinds"),
    "classes-clash": predicted(kinds(200, 9) | {"label": [1] * 200}, "--id-column label,kind", base="kinds"),
    "dates": predicted(NEW | {"day": ["2024-03-01"] * 240}, base="dated"),
}  # fmt: skip
GREY, LABELS = arrays(120)
TEST, TEST_LABELS = arrays(45, 1000)
COLOUR, _ = arrays(120, channels=3)
NAMES = np.array(["cat", "dog", "owl"])


def imaged(files: Mapping[str, Content], data: str = "pets", options: str = "") -> Case:
    """Images through inspect, retrain, predict and evaluate."""
    retrained = f"retrain softmax-regression --name m --data {data} --no-predict {options}".strip()
    return Case(
        (
            files,
            f"inspect {data} {options}".strip(),
            retrained,
            f"predict {data} --name m --output out",
            f"evaluate m {data}",
        )
    )


def pictured(files: Mapping[str, Content], data: str = "p") -> Case:
    """The same pictures, in train and test, in another form."""
    return Case(
        (
            files,
            f"inspect {data}",
            f"retrain m --data {data} --no-predict",
            f"predict {data} --name m --output out",
            f"evaluate m {data}",
        ),
        "pictures",
    )


def in_folders(path: Path) -> None:
    """The arrays as files of train and test, by class."""
    for part, images, labels in (("train", GREY, LABELS), ("test", TEST, TEST_LABELS)):
        for at, (image, label) in enumerate(zip(images, labels, strict=True)):
            (path / part / NAMES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / part / NAMES[label] / f"{at:03d}.png")


BASES["pictures"] = ({"folders": in_folders}, "retrain softmax-regression --name m --data folders --no-predict")
MNIST: dict[str, str | bytes] = {
    "p/labels.txt": "cat\ndog\nowl\n",
    "p/train-images-idx3-ubyte": idx(GREY), "p/train-labels-idx1-ubyte": idx(LABELS),
    "p/t10k-images-idx3-ubyte": idx(TEST), "p/t10k-labels-idx1-ubyte": idx(TEST_LABELS),
}  # fmt: skip
IDX = {name: each for name, each in MNIST.items() if isinstance(each, bytes)}
IMAGES: dict[str, Case] = {
    "grey": imaged({"pets": folders(PETS)}),
    "colour": imaged({"pets": folders(PETS, channels=3)}),
    "colour-as-grey": imaged({"pets": folders(PETS, channels=3)}, options="--channels grey --side 5"),
    "jpeg": imaged({"pets": folders(PETS, ".jpg", side=16)}),
    "sizes": imaged({"pets": folders({"cat": 30, "dog": 30}), "pets/": folders({"cat": 30, "dog": 30}, first=50, side=11)}),
    "odd": imaged({"pets": folders({"cat": 99, "dog": 99}), "pets/cat/odd": odd_pictures}, options="--max-rejects 0.05 --side 8"),
    "broken-few": imaged({"pets": folders(PETS), "pets/cat/x.png": "no picture"}),
    "broken-many": imaged({"pets": folders(PETS), **{f"pets/cat/x{n}.png": "no picture" for n in range(9)}}),
    "train-test": imaged({"pets/train": folders(PETS), "pets/test": folders({"cat": 9, "dog": 9, "owl": 9}, first=500)}),
    "train-val-test": imaged({"pets/train": folders(PETS), "pets/test": folders({"cat": 9, "dog": 9, "owl": 9}, first=500), "pets/val": folders({"cat": 9, "dog": 9}, first=600)}),
    "train-val": imaged({"pets/train": folders(PETS), "pets/val": folders({"cat": 9, "dog": 9, "owl": 9}, first=500)}),
    "copies": imaged({"pets": folders({"cat": 30, "dog": 30}), "pets/cat": folders({"again": 30}), "pets/dog": folders({"other": 5})}),
    "empty-class": imaged({"pets": folders(PETS | {"pig": 0})}),
    "one-class": imaged({"pets": folders({"cat": 60})}),
    "strays": imaged({"pets": folders(PETS), "pets/readme.txt": "x", "pets/cat/notes.csv": "a,b\n", "pets/.hidden/x.png": "x"}),
    "odd-names": imaged({"pets": folders({"a\nb": 40, "[/]": 40, "ü": 40})}),
    "idx": pictured(MNIST),
    "idx-gz": pictured({f"{name}.gz": gzip.compress(each, mtime=0) for name, each in IDX.items()} | {"p/labels.txt": MNIST["p/labels.txt"]}),
    "idx-no-labels": pictured({name: each for name, each in MNIST.items() if "labels" not in name}),
    "idx-cut": pictured(MNIST | {"p/train-images-idx3-ubyte": idx(GREY)[:-70]}),
    "emnist": imaged({name.replace("p/", "pets/emnist-letters-").replace("t10k", "test"): each for name, each in IDX.items()}),
    "keras": pictured({"a.npz": npz(x_train=GREY, y_train=LABELS, x_test=TEST[..., None], y_test=TEST_LABELS[:, None], class_names=NAMES)}, "a.npz"),
    "npz-words": imaged({"a.npz": npz(images=GREY, labels=NAMES[LABELS])}, "a.npz"),
    "npz-floats": imaged({"a.npz": npz(images=GREY / 255, labels=LABELS)}, "a.npz"),
    "npz-labels-fewer": imaged({"a.npz": npz(images=GREY, labels=LABELS[1:])}, "a.npz"),
    "npz-fortran": imaged({"a.npz": npz(images=np.asfortranarray(GREY), labels=LABELS)}, "a.npz"),
    "safetensors": imaged({"a.safetensors": tensors(images=COLOUR, labels=LABELS.astype(np.int64))}, "a.safetensors"),
    "hugging-face": pictured({"p/data/train-00000-of-00001.parquet": hugging_face(GREY, LABELS), "p/data/test-00000-of-00001.parquet": hugging_face(TEST, TEST_LABELS)}),
    "hugging-face-label-beyond": imaged({"a.parquet": hugging_face(GREY, LABELS + 1)}, "a.parquet"),
    "steps": Case(({"pets": folders(PETS)}, f"{TRAIN_PETS} --epochs 20 --batch-size 16 --lr 0.05 --weight-decay 0.01 --validation 0.2 --class-weight balanced --dropout 0.1")),
    "scratch": Case(({"pets": folders(PETS)}, f"{TRAIN_PETS} --implementation scratch")),
    "misused": Case(({"pets": folders(PETS), "t.csv": H, "empty/.keep": ""}, "inspect pets --ignore x", "inspect pets --side 999", "inspect pets/cat", "inspect 'pets/*'", "inspect empty", f"{TRAIN_PETS} --channels cmyk", f"{TRAIN_PETS} --split-by x", "retrain --name m --data t.csv", "retrain --data pets", "retrain linear-regression --name m --data pets")),
    "later-grown": Case(({"pets": folders(PETS, first=100)}, "inspect pets --name m", "retrain m --data pets --no-predict", "models m"), "pets"),
    "later-class-gone": Case(({"p": folders({"cat": 40, "dog": 40})}, "inspect p --name m", "retrain m --data p --no-predict"), "pets"),
    "later-class-new": Case(({"p": folders(PETS | {"pig": 40})}, "inspect p --name m", "retrain m --data p --no-predict"), "pets"),
}  # fmt: skip
SEEN: dict[str, Case] = {
    "folder": predicted(folders(PETS, first=500), name="p", base="pets"),
    "folder-larger-colour": predicted(folders(PETS, first=500, side=13, channels=3), name="p", base="pets"),
    "folder-other-classes": predicted(folders({"cat": 5, "pig": 5}), name="p", base="pets"),
    "folder-odd": predicted(odd_pictures, "--max-rejects 9", name="p/cat", base="pets"),
    "folder-odd-colour": predicted(odd_pictures, name="p/cat", base="pets-rgb"),
    "one-picture": Case((PREDICT.format("pets/cat/0001.png", ""), "evaluate m pets/cat/0001.png"), "pets"),
    "npy": predicted(npy(TEST), name="n.npy", base="pets"),
    "npy-larger": predicted(npy(arrays(9, side=20)[0]), name="n.npy", base="pets"),
    "npy-colour": predicted(npy(arrays(9, channels=3)[0]), name="n.npy", base="pets"),
    "npy-grey-to-colour": predicted(npy(TEST), name="n.npy", base="pets-rgb"),
    "npy-floats": predicted(npy(TEST / 255), name="n.npy", base="pets"),
    "npz-labels": predicted(npz(images=TEST, labels=TEST_LABELS), name="n.npz", base="pets"),
    "idx": Case(({name: each for name, each in MNIST.items() if "t10k" in name}, PREDICT.format("p/t10k-images-idx3-ubyte", ""), "evaluate m pets"), "pets"),
    "idx-promising": predicted(idx(TEST)[:4] + b"\xff" * 12, name="n-images-idx3-ubyte", base="pets"),
    "hugging-face": predicted(hugging_face(TEST, TEST_LABELS), "--id-column label", name="n.parquet", base="pets"),
    "hugging-face-other-names": predicted(hugging_face(TEST, TEST_LABELS, ("owl", "cat", "dog")), name="n.parquet", base="pets"),
    "raw-pixels": predicted(lambda path: pq.write_table(pa.table({"images": [each.tobytes() for each in TEST], "labels": TEST_LABELS}), path), name="n.parquet", base="pets"),
    "table": predicted(H, base="pets"),
}  # fmt: skip
COMMANDS: dict[str, tuple[Step, ...]] = {
    "empty-store": ("models", "text models", "history", "show m", "verify m", "verify softmax-regression", "rollback m", "promote m 1", "freeze m", "prune m --keep 1", "predict", "evaluate", "evaluate m t.csv", "maintain", "retrain m", "tune m", "compare m 1 2"),
    "wrong-words": ("nonsense", "text nonsense", "text retrain --epochs many", "retrain --epochs many", "retrain --epochs 0", "retrain --lr -1", "retrain --test 0.3", "retrain linear-regression --dropout 0.1", "retrain --loss huber", "retrain --name Bad_Name", "retrain --seed x", "retrain --implementation deep", "models --sort loss", "promote m x", "retrain --synthetic-w 1", "predict --unknown maybe", "tune --trials 0", "retrain --nonsense"),
    "own-data-misused": ({"t.csv": H}, "retrain linear-regression --data t.csv --target price", "retrain --name softmax-regression --data t.csv --target price", "retrain linear-regression --name m --data t.csv", "retrain linear-regression --name m --data nowhere.csv --target price", "inspect t.csv", "inspect nowhere.csv --target price", "inspect ''", "inspect t.csv --target ''", "inspect t.csv --target nope", "inspect t.csv --target price --category ''", "retrain --name m --data t.csv --target price --resize 14", "text inspect t.csv --target price", "text inspect t.csv --target nope"),
    "addresses": ("inspect https://u:pw@127.0.0.1:9/t.csv --target y", "inspect 'https://127.0.0.1:9/t.csv?token=x' --target y", "inspect 'https://127.0.0.1:9/t.csv?jwt=x' --target y", "inspect https://127.0.0.1:9/t.csv --target y", "inspect gopher://x/t.csv --target y", "inspect file:///nowhere/t.csv --target y"),
    "kept-names": ({}, "retrain m --target age", "retrain softmax-regression --name m", "retrain linear-regression --name m --data data --target age", "retrain m --name other", "retrain m --nonsense 1", "inspect data --name m", "inspect data --name nope", "text models", "text models m", "text verify m", "models nope", "models --runs", "prune m --keep 0", "promote m 7", "verify m 7", "show m --version 1", "promote m 1"),
}  # fmt: skip
TUNED: dict[str, Case] = {
    "numbers": Case(("tune m --trials 3", "retrain m --tuned --no-predict", "models m"), "houses"),
    "classes": Case(("tune m --trials 3 --space lr=0.1:1,weight-decay=0.001|0.01", "retrain m --tuned --no-predict", "tune m --trials 3 --space lr"), "kinds"),
    "new-name": Case(({"t.csv": H}, "tune linear-regression --name m --data t.csv --target price --trials 2", "models", "retrain linear-regression --name m --data t.csv --target price --tuned --no-predict")),
}  # fmt: skip
BOOK: dict[str, tuple[Step, ...]] = {
    "linear-scratch": ("retrain linear-regression --implementation scratch", "verify linear-regression", "evaluate linear-regression"),
    "linear-concise": ("retrain linear-regression", "retrain linear-regression", "retrain linear-regression --seed 7", "show linear-regression"),
    "linear-huber": ("retrain linear-regression --loss huber --no-predict", "retrain linear-regression --synthetic-w 1,2,3 --name three --num-examples 500"),
    "linear-few-epochs": ("retrain linear-regression --epochs 1 --no-predict",),
    "softmax-scratch": ("retrain --implementation scratch --no-predict", "verify softmax-regression"),
    "softmax-concise": ("retrain", "evaluate", "evaluate softmax-regression", "show softmax-regression"),
    "softmax-refused": ("retrain --epochs 1 --no-predict --resize 14", "models --runs"),
}  # fmt: skip
AFTER = (
    "models",
    "history m",
    "verify m",
    "predict --name m --output again",
    "retrain m --no-predict",
    "promote m 2",
    "rollback m",
)
CASES |= {f"night/{name}": case for name, case in NIGHTS.items()}
CASES |= {f"predict/{name}": case for name, case in PREDICTED.items()}
CASES |= {f"image/{name}": case for name, case in IMAGES.items()}
CASES |= {f"seen/{name}": case for name, case in SEEN.items()}
CASES |= {f"command/{name}": Case(steps, "houses" if name == "kept-names" else "") for name, steps in COMMANDS.items()}
CASES |= {f"tune/{name}": case for name, case in TUNED.items()}
CASES |= {f"book/{name}": Case(steps) for name, steps in BOOK.items()}
CASES |= {f"store/{name}": Case((damage, *AFTER), "two") for name, damage in DAMAGES.items()}
CASES["store/job-garbage"] = Case(
    (DAMAGES["job-garbage"], PREDICT.format("new.csv", ""), PREDICT.format("new.csv", "--restart")), "two"
)
CASES |= {
    f"store/{name}-grown": Case(
        (
            DAMAGES[name],
            {"data/day3.csv": later(houses(600, 3), {"area": lambda x: x * 1000})},
            "retrain m --data data --no-predict",
            "verify m",
        ),
        "two",
    )
    for name in ("none", "rows-flipped", "rows-gone", "look-garbage")
}
