"""Own tables from outside: what ``gradmill inspect --json`` says of kinds, missing values, splits and faults.

Cases of the contract, which name nothing of the inside. Membership of the split is seen by counts alone: what is split
by a hash of each row adds up over any parts of a table, and whole groups give multiples of their size.
"""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from candidate import seal
from command_line import GRADMILL, assert_clear, in_own_mounts, typed
from documents import ask, column, counts, inspect, load, retrain, rules
from served_folders import serve
from table_files import FORMATS, written

ROWS = 400
RNG = np.random.default_rng(0)
N = np.arange(ROWS)
MANY = np.arange(45_000)
X = RNG.normal(size=ROWS)
Y = X + RNG.normal(size=ROWS)
Columns = dict[str, Any]


def every(*values: Any, rows: int = ROWS) -> list[Any]:
    """These values again and again."""
    return [values[at % len(values)] for at in range(rows)]


def once(values: Any, at: int, odd: Any) -> list[Any]:
    """The values, one of which is another."""
    return [*values[:at], odd, *values[at + 1 :]]


def singles(number: int, rows: int = ROWS) -> list[str]:
    """Levels of which so many occur once."""
    return [*(f"once {at}" for at in range(number)), *["often"] * (rows - number)]


# Kinds and levels of a column that stands beside a number and the target.
KINDS: dict[str, tuple[list[Any], str, Columns]] = {
    "text": (every("b", "a", "b"), "", {"kind": "category", "levels": ["b", "a"]}),
    "numbers": (every(7, 2), "", {"kind": "number", "minimum": 2, "maximum": 7}),
    "0 and 1": (every(0, 1), "", {"kind": "number"}),
    "truth": (every(True, False), "", {"kind": "boolean"}),
    "numbers as levels": (
        every(8, 9, 10, 11), "--category c", {"kind": "category", "levels": ["8", "9", "10", "11"], "num_levels": 4}
    ),
    "over half occur once": (singles(201), "", {"role": "left out", "kind": "text"}),
    "codes of rows": ([f"AB-{at:05d}" for at in range(ROWS)], "", {"role": "left out", "kind": "id"}),
    "half occur once": (singles(200), "", {"kind": "category"}),
    "ids insisted on": (singles(201), "--category c", {"kind": "category"}),
    "of 150 rows, nine tenths": (singles(136, 150), "", {"role": "left out"}),
    "of 150 rows, fewer": (singles(134, 150), "", {"kind": "category"}),
    "more than a tenth is text": ([*every("?", rows=41), *every("1", "2", rows=359)], "", {"kind": "category"}),
    "gaps": (every(1.5, None, None, 2.5), "", {"kind": "number", "missing": 200, "minimum": 1.5}),
    "gaps of text": (every("a", None), "", {"kind": "category", "missing": 200, "num_levels": 1}),
    "gaps of truth": (every(True, False, None, True), "", {"kind": "boolean", "missing": 100}),
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("case", KINDS)
def test_a_columns_kind_is_inferred_alike_in_every_format(case: str, suffix: str, tmp_path: Path) -> None:
    values, options, expected = KINDS[case]
    rows = len(values)
    found = inspect(written(tmp_path / f"t{suffix}", {"x": X[:rows], "c": values, "y": Y[:rows]}), *options.split())
    described = column(found, "c")
    assert described | {"role": "feature"} | expected == described
    assert ("c" in found["split"]["features"]) == (described["role"] == "feature")


@pytest.mark.parametrize("source", ["data", "data/year=*/kind=*/*.csv"])
def test_folders_are_read_in_order_and_have_their_partitions_as_columns(source: str, tmp_path: Path) -> None:
    parts = [(2023, "a%20b"), (2024, "__HIVE_DEFAULT_PARTITION__")]
    files = [written(tmp_path / f"data/year={year}/kind={kind}/t.csv", {"x": X, "y": Y}) for year, kind in parts]
    for number in ("²", "--5"):  # are no whole numbers
        written(tmp_path / f"other/number={number}/t.csv", {"x": X, "y": Y})
    assert column(inspect(tmp_path / "other"), "number")["levels"] == ["--5", "²"]
    (tmp_path / "data/_SUCCESS.csv").write_text("what tools write")
    found = inspect(tmp_path / source)
    year, kind = column(found, "year"), column(found, "kind")
    assert (year["kind"], year["minimum"], year["maximum"], year["missing"]) == ("number", 2023, 2024, 0)
    assert (kind["kind"], kind["levels"], kind["missing"]) == ("category", ["a b"], ROWS)
    files[1].write_text(files[1].read_text().replace(f"{X[7]}", "seven", 1))
    (fault,) = rules(inspect(tmp_path / source, code=4), "error").values()
    assert f"'seven' in line 9 of {files[1]}" in fault


def test_a_column_of_folders_stands_where_the_files_have_it_also_where_they_have_it_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "c=a" / "p.parquet", {"c": ["q"] * ROWS, "x": X, "y": Y})
    found = inspect(tmp_path)
    assert [(each["name"], each["levels"]) for each in found["columns"]] == [("c", ["a"]), ("x", []), ("y", [])]
    written(path, pa.table([pa.array(each) for each in (N, X, N, Y)], ["c", "x", "c", "y"]))
    inspect(tmp_path, "--ignore", "c")


def test_row_names_as_pandas_writes_them_may_be_in_some_files_of_a_folder(prefect_api: str, tmp_path: Path) -> None:
    frame, folder = pd.DataFrame({"x": X, "c": every("a", "b"), "y": Y}), tmp_path / "days"
    folder.mkdir()
    frame[:150].to_csv(folder / "1.csv")
    frame[150:300].to_csv(folder / "2.csv", index=False)
    frame[300:].set_index(N[300:].astype(str)).to_parquet(folder / "3.parquet")
    found = inspect(folder)
    assert {each["name"] for each in found["columns"] if each["role"] == "feature"} == {"x", "c"}
    assert rules(found, "note").keys() == {"index Unnamed: 0", "index __index_level_0__"}
    retrain("linear-regression", "daily", folder)
    frame[:50].assign(x=X[50:100]).to_csv(folder / "4.csv")
    assert ask("retrain", "daily", "--no-predict")["outcome"] == "published"
    frame[:150].assign(**{"": 7.5}).iloc[:, [3, 0, 1, 2]].to_csv(folder / "1.csv", index=False)
    error = inspect(folder, code=4)["error"]
    assert "without column Unnamed: 0" in error["found"]


@pytest.mark.slow
def test_tables_are_read_by_url_with_nothing_but_public_keys_in_its_query(
    prefect_api: str, on_server: None, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    files = [written(tmp_path / f"t{suffix}", {"x": X, "c": every("a", "b"), "y": Y}) for suffix in FORMATS]
    files.append(tmp_path / "packed.csv.gz")
    files[-1].write_bytes(gzip.compress(files[0].read_bytes()))
    queries = ["", "?dl=1", "?raw=true&download=1", "?version=2.1&rev=main", "?format=csv"]
    with serve(tmp_path) as address:
        for path, query in zip(files, queries, strict=True):
            local, found = inspect(path), inspect(f"{address}/{path.name}{query}")
            assert (found["columns"], counts(found)) == (local["columns"], counts(local))
        for source in (f"{address}/missing.csv", "http://127.0.0.1:9/t.csv"):
            inspect(source, code=4)
        retrain("linear-regression", "own", f"{address}/t.csv?raw=true")
        (small := tmp_path / "small").mkdir()
        monkeypatch.setenv("TMPDIR", str(small))  # as in a container, where it is memory
        mounted = in_own_mounts(f'mount -t tmpfs -o size=4k tmpfs "{small}"')
        command = [*mounted, GRADMILL, "predict", f"{address}/t.parquet", "--name", "own"]
        assert not subprocess.run(command, capture_output=True).returncode
    source = load(artifacts / "datasets/own/source.json")["source"]
    assert source == f"{address}/t.csv?raw=true"


def test_what_stands_for_missing_in_text_files_is_missing_in_any_column(tmp_path: Path) -> None:
    numbers, words = (every("", "NA", "N/A", "NaN", "null", *[known] * 3) for known in ("1.5", "word"))
    lines = (f"{X[at]},{numbers[at]},{words[at]},{Y[at]}\n" for at in N)
    (tmp_path / "t.csv").write_text("x,c,t,y\n" + "".join(lines))
    found = inspect(tmp_path / "t.csv")
    for name, expected in (("c", ("number", 250, 0)), ("t", ("category", 250, 1))):
        described = column(found, name)
        assert (described["kind"], described["missing"], described["num_levels"]) == expected


def with_y(**columns: Any) -> Columns:
    return {"x": X, **columns, "y": Y}


DAYS = [f"2024-01-{at % 20 + 1:02}" for at in N]
FAULTS: dict[str, tuple[Columns, str, str, str]] = {
    "text among numbers of a column whose name a shell would not take": (
        with_y(**{"Ø (°C), raw": once(list(map(str, N)), 17, "twelve")}), "", "text-among-numbers Ø (°C), raw",
        r"--category '\"Ø (°C), raw\"'",
    ),
    "no such target": (with_y(), "--target cost", "no-such-column cost", "cost"),
    "no such feature": (with_y(), "--features x,size", "no-such-column size", "size"),
    "a target with a word in it": (
        {"x": X, "y": once(list(map(str, N)), 17, "n/a")}, "", "target-kind y", "text, such as 'n/a' in row 18"
    ),
    "no features": ({"id": [f"row {at}" for at in N], "y": Y}, "", "no-features", ""),
    "a constant target": ({"x": X, "y": every(5.0)}, "", "constant-target y", "5"),
    "a target that is constant in the window": (
        {"x": X, "d": DAYS, "y": [at if at % 20 < 10 else 5 for at in N]},
        "--time-column d --window 7d", "constant-target y", "5",
    ),
    "one class": ({"x": X, "y": every("a")}, "", "constant-target y", "a"),
    "a target beyond float32": ({"x": X, "y": once(Y, 399, -1e39)}, "", "infinite-target y", ""),
    "an infinite value": (with_y(c=once(X, 7, 1e39)), "", "infinite-value c", ""),
    "a far target": ({"x": X, "y": Y * 14 + 1.7e9}, "", "offset y", "subtract an offset"),
    "a tiny target": ({"x": X, "y": Y * 1e-300}, "", "offset y", "scale the target up"),
    "no target at all": ({"x": X, "y": [None] * ROWS}, "", "no-target y", ""),
    "lists": (with_y(c=[[1]] * ROWS), "", "nested-column c", ""),
    "intervals": (with_y(c=pa.array([pa.MonthDayNano([1, 2, 3])] * ROWS)), "", "nested-column c", "interval"),
    "a part of a date twice": (
        {"d": DAYS, "d.month": X, "y": Y}, "", "name-clash d.month", "d.month is a column, and a part of d"
    ),
    "a rare class": ({"x": X, "y": once(every("a", "b"), 3, "rare")}, "", "rare-class", "'rare' has 1 row"),
    "a target written otherwise": (
        {"x": X, "y": [f"{'€$'[at % 2]} {at}" for at in N]},
        "", "rare-class y", "write them as 1234.5 if it cannot read them",
    ),
    "a class of two lines": ({"x": X, "y": every("two\nlines", "b")}, "", "class-name y", "two"),
    "a class without letters": ({"x": X, "y": every("", "b")}, "", "class-name y", "''"),
    "too few rows": ({"x": X[:12], "y": Y[:12]}, "", "too-few-rows", "2 test rows and 10 training rows"),
    "a small share": ({"x": X[:60], "y": Y[:60]}, "--test 0.02", "too-few-rows", ""),
    "nine groups": (with_y(g=every(*range(9))), "--split-by g", "too-few-rows", "9"),
    "a row without a group": (with_y(g=once(every(*range(40)), 7, None)), "--split-by g", "split-missing", "1 row"),
    "a row without a part": (with_y(g=once(every("train", "test"), 7, None)), "--split-column g", "split-missing", ""),
    "an odd part": (with_y(g=every("train", "test", "perhaps")), "--split-column g", "split-column", "'perhaps'"),
    "a time that is no number": (
        with_y(g=once(list(map(float, N)), 7, np.nan)), "--time-column g", "split-missing", "g is missing in 1 row"
    ),
    "no time": (with_y(g=once(every("2024-01-01"), 7, "soon")), "--time-column g", "no-moment g", "'soon' in row 8"),
    "a time in another zone": (
        with_y(g=once(every("2024-01-01", "2024-01-02"), 7, "2024-01-01T00:00:00Z")), "--time-column g",
        "mixed-zones g", "with a zone and times without",
    ),
    "an empty time": (
        with_y(g=once(every("31.12.2024", "2.1.2024"), 7, "")), "--time-column g", "no-moment g", "'' in row 8"
    ),
    "days or months": (with_y(g=every("01/02/2024", "12/1/2024")), "--time-column g", "date-order g", "31/12/2024"),
    "a window of numbers": (with_y(g=list(N)), "--time-column g --window 7d", "window g", ""),
    "too many levels": (
        {"c": [f"level {at // 2}" for at in range(22_000)], "x": np.arange(22_000) % 991, "y": np.arange(22_000) % 7},
        "", "too-many-levels c", "11,000",
    ),
    "3,000 classes and columns of 500 levels": (
        {"c": [f"level {at % 500}" for at in MANY], "d": [f"{at // 7 % 500} m" for at in MANY],
         "x": MANY % 991, "y": [f"class {at % 3000}" for at in MANY]},
        "", "too-many-weights", "1,001 numbers and levels and 3,000 classes make 3,003,000 weights; the",
    ),
    "6,000 classes": (
        {"x": MANY % 991, "y": [f"class {at % 6000}" for at in MANY]}, "", "too-many-classes", "join classes: 4,9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_table_that_cannot_be_learned_is_exit_4_and_says_what_to_do(case: str, tmp_path: Path) -> None:
    columns, options, rule, words = FAULTS[case]
    suffix = "feather" if case == "intervals" else "parquet"
    found = inspect(written(tmp_path / f"t.{suffix}", columns), *options.split(), code=4)
    assert rule in rules(found, "error")
    assert words in json.dumps(found["findings"], ensure_ascii=False)
    assert all(each["expected"] and each["action"] for each in found["findings"] if each["severity"] == "error")
    is_split = rule.split()[0] not in ("split-column", "split-missing", "no-moment", "mixed-zones", "date-order")
    assert is_split or (found["split"], *counts(found)) == (None, 0, 0, 0), "rows are on no side yet"


LONG = np.random.default_rng(0).normal(size=60_000)
NEARLY = once(LONG, 1, 0)  # in a row that is not sampled
WARNINGS: dict[str, tuple[Columns, str, *tuple[str, ...]]] = {
    "one value": (with_y(c=every(3)), "constant-column c"),
    "no value": (with_y(c=pa.nulls(ROWS)), "constant-column c"),
    "a column twice": (with_y(c=X), "duplicate-column c"),
    "two after one nearly equal": (
        {"a": LONG, "b": NEARLY, "c": NEARLY, "y": LONG[::-1]}, "duplicate-column c"
    ),
    "half missing": (with_y(c=[*X[:200], *[None] * 200]), "missing-values c"),
    "the target in other units": (with_y(c=3 * Y + 1), "predicts-alone c"),
    "a far mean": (with_y(c=1.7e9 + 3 * X), "offset c"),
    "one number in float32": (with_y(c=1.7e9 + X), "offset c", "one number in float32", "subtract"),
    "tiny numbers": (with_y(c=(3 + X) * 1e-300), "offset c", "0 in float32", "scale it up"),
    "a total of its parts": ({"x": X, "c": Y, "y": 3 * X - 0.5 * Y + 7}, "perfect-fit", "x, c"),
    "rows at odds": ({"x": N // 2, "y": Y}, "equal-rows"),
    **{
        f"text such as {form.format(1)}": (with_y(c=[form.format(at + 1234) for at in N]), "looks-like c")
        for form in ("{:,} kg", "{:,},- EUR", "{:,} Mio.", "01 janv. {}", "12-août-{}")
    },
    **{
        f"months such as {form.format(2019)}": (
            with_y(c=every(*[form.format(year) for year in (2019, 2020)])), "looks-like c"
        )
        for form in ("janv. {}", "août {}", "{}Q1", "Q4 {}")
    },
    "short months": (with_y(c=every("Jan 19", "Mai-20")), "looks-like c"),
    "numbers of rows": ({"c": 1000 - N[:100], "x": X[:100], "y": Y[:100]}, "counts-rows c"),
    "a class given away": ({"x": X, "c": every("is a", "is b"), "y": every("a", "b")}, "predicts-alone c"),
}  # fmt: skip


@pytest.mark.parametrize("case", WARNINGS)
def test_what_is_odd_is_said_and_stops_nothing(case: str, tmp_path: Path) -> None:
    columns, rule, *words = WARNINGS[case]
    found = inspect(written(tmp_path / "t.parquet", columns))
    assert rule in rules(found, "warning")
    assert all(each in json.dumps(found["findings"], ensure_ascii=False) for each in words)


@pytest.mark.parametrize(("value", "is_far"), [(999_999, True), (-400, True), (300, False)])
def test_a_number_far_beyond_the_training_rows_is_named_with_its_row(value: int, is_far: bool, tmp_path: Path) -> None:
    part = np.where(N % 5 == 4, "test", "train")
    path = written(tmp_path / "t.csv", with_y(c=once((N % 31) + 1, 9, value), part=part))
    warnings = rules(inspect(path, "--split-column", "part"), "warning")
    assert ("extreme-value c" in warnings) == is_far
    if is_far:
        assert warnings["extreme-value c"].startswith(f"c is {value} in line 11 of {path}")
        assert warnings["extreme-value c"].endswith("the training rows have 1 to 31")


@pytest.mark.usefixtures("prefect_api")
def test_a_refusal_for_the_sake_of_one_row_names_it(tmp_path: Path) -> None:
    """A class by the sign of ``c``, but in one test row, whose score is far beyond all others and wrong."""
    c = X.copy()
    part = np.where(N % 5 == 4, "test", "train")
    labels = np.where(c > np.median(c), "yes", "no")
    c[9], labels[9] = 1e9, "no"
    path = written(tmp_path / "t.csv", {"c": c, "part": part, "y": labels})
    done = typed("retrain", "--data", path, "--target", "y", "--split-column", "part", "--name", "t", "--no-predict")
    assert done.returncode == 3, done.stderr
    to_do = done.stderr.rpartition("to do: ")[2]
    assert "and mind that c is 1,000,000,000 in line 11 of t.csv, which the model is judged by" in to_do
    assert "name it with --missing 1e+09" in to_do


def test_rows_in_the_order_of_time_and_of_one_patient_each_get_a_hint(tmp_path: Path) -> None:
    day = np.datetime64("2020-01-01") + N
    path = written(
        tmp_path / "t.csv", with_y(day=day, born=day[RNG.permutation(ROWS)], patient_id=N % 40, rating=N % 10)
    )
    found = inspect(path)
    hints = [each for each in found["findings"] if each["rule"] in ("time-order", "repeated-entity")]
    assert [each["column"] for each in hints] == ["day", "patient_id"]
    assert "--time-column day" in hints[0]["action"]
    assert "--split-by patient_id" in hints[1]["action"]
    for option in ("--time-column day", "--split-by patient_id"):
        assert not {"time-order day", "repeated-entity patient_id"} & set(rules(inspect(path, *option.split()), "note"))


@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_with_leading_zeros_may_be_codes_which_is_said_alike_in_every_format(
    suffix: str, tmp_path: Path
) -> None:
    codes, numbers = every("20095", "01234", "30159", None), every("0", "0.5", "10")
    path = written(tmp_path / f"t{suffix}", with_y(c=codes, n=numbers, late=[*numbers[1:], "007"]))
    found, wanted = (rules(inspect(path, *given.split()), "warning") for given in ("", "--category c,late"))
    assert {rule: text for rule, text in found.items() if rule.startswith("leading-zeros")} == {
        f"leading-zeros {name}": f"{name} is read as numbers, although values such as {value} begin with 0"
        for name, value in {"c": "01234", "late": "007"}.items()
    }
    assert not [rule for rule in wanted if rule.startswith("leading-zeros")]


def test_an_ordinary_table_has_no_warning_and_one_with_a_single_pair_at_odds_a_note(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 1, ROWS)
    table = {"x": X, "year": every(2007, 2008, 2009), "t": X > 0.5, "y": X + noise}
    assert inspect(written(tmp_path / "t.csv", table))["findings"] == []
    pair = inspect(written(tmp_path / "pair.csv", {"x": once(X, 399, X[0]), "y": Y}))
    assert [(each["rule"], each["severity"]) for each in pair["findings"]] == [("equal-rows", "note")]


@pytest.mark.parametrize("name", ["", "--name linear-regression", "--name softmax-regression"])
@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
def test_own_data_are_never_kept_under_the_books_names(model: str, name: str, artifacts: Path, tmp_path: Path) -> None:
    done = typed("retrain", model, *name.split(), "--data", written(tmp_path / "t.csv", with_y()), "--target", "y")
    assert_clear(done, 2)
    assert "--name" in done.stderr
    assert not artifacts.exists()


# Columns, options, the rule of the split, rows on each side, and rows without a target or outside of the window.
LATE = {"x": X, "d": DAYS, "y": [None if at % 20 == 19 else value for at, value in enumerate(Y)]}
BY_COLUMN = "--split-column p"
SPLITS: dict[str, tuple[Columns, str, str, tuple[int, ...]]] = {
    "days": (with_y(d=DAYS), "--time-column d", "time", (320, 0, 80, 0, 0)),
    "no cut within a day": (with_y(d=every(*DAYS[:3])), "--time-column d", "time", (267, 0, 133, 0, 0)),
    "nearest to another share": (with_y(d=DAYS), "--time-column d --test 0.33", "time", (260, 0, 140, 0, 0)),
    "numbers in order": (with_y(d=list(N)), "--time-column d", "time", (320, 0, 80, 0, 0)),
    "words": (with_y(p=every("Train", "TEST", "validation", "training")), BY_COLUMN, "column", (200, 100, 100, 0, 0)),
    "no test": (with_y(p=every("train", "train", "train", "val")), BY_COLUMN, "column", (300, 0, 100, 0, 0)),
    "truth": (with_y(p=every(False, False, True, False)), BY_COLUMN, "column", (300, 0, 100, 0, 0)),
    "what is said of rows without a target is of no account": (
        {"x": X, "p": once(every("train", "val"), 7, "pending"), "y": once(Y, 7, None)},
        BY_COLUMN, "column", (200, 0, 199, 1, 0),
    ),
    # Counted back from the nineteenth day, the newest with a target.
    "ten days": (LATE, "--time-column d --window 10d", "time", (160, 0, 40, 20, 180)),
    "a week": (LATE, "--time-column d --window 1w", "time", (120, 0, 20, 20, 240)),
    "hours": (LATE, "--time-column d --window 72h", "time", (40, 0, 20, 20, 320)),
    "days of which the last are of either order": (
        with_y(d=[f"{at // 20 + 1:02}/02/2024" if at < 260 else f"{at // 20 - 12:02}/03/2024" for at in N]),
        "--time-column d --window 7d", "time", (120, 0, 20, 0, 260),
    ),
    "more than there is": (LATE, "--time-column d --window 500d", "time", (300, 0, 80, 20, 0)),
}  # fmt: skip


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("case", SPLITS)
def test_a_split_by_time_or_column_has_the_rows_that_the_column_says(case: str, suffix: str, tmp_path: Path) -> None:
    columns, options, rule, expected = SPLITS[case]
    found = inspect(written(tmp_path / f"t{suffix}", columns), *options.split())
    assert (found["split"]["rule"], *counts(found), found["unlabelled"], found["outside"]) == (rule, *expected)
    assert found["split"]["features"] == ["x"], "what splits is no feature"


def test_rows_of_a_group_are_on_one_side(tmp_path: Path) -> None:
    groups, x = np.arange(31 * 60) // 31, RNG.normal(size=31 * 60)
    columns, padded = {"x": x, "y": x + RNG.normal(size=len(x))}, [f"{group:03}" for group in groups]
    forms = {"t.csv": groups, "t.parquet": groups.astype(float), "t.jsonl": list(map(str, groups))}
    sides = []
    for name, of in (*forms.items(), ("padded.csv", padded), ("padded.parquet", padded)):
        found = inspect(written(tmp_path / name, columns | {"g": of}), "--split-by", "g")
        assert (found["split"]["rule"], found["split"]["features"], found["num_test"] % 31) == ("group", ["x"], 0)
        assert 5 <= found["num_test"] // 31 <= 20, "near to a fifth of 60 groups"
        sides.append(found["num_test"])
    assert sides == [sides[0]] * 3 + [sides[-1]] * 2, "a group is called as its file has it"
    assert sides[0] != sides[-1]


def test_rows_split_by_hash_stay_on_their_side_whatever_else_is_there(tmp_path: Path) -> None:
    """What each row's own values decide adds up over every way to cut a table, in any order and format."""
    table = pa.table({"x": X, "c": every("a", "ü", None), "k": every(0.0, -0.0, None, 2.5), "y": Y})

    def tests_of(name: str, part: pa.Table) -> int:
        found = inspect(written(tmp_path / name, part))
        assert (found["split"]["rule"], sum(counts(found))) == ("rows", len(part))
        number: int = found["num_test"]
        return number

    whole = tests_of("whole.csv", table)
    assert whole == pytest.approx(0.2 * ROWS, abs=30)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(ROWS)
        parts = [table.take(order[:150]), table.take(order[150:])]
        assert sum(tests_of(f"{seed}{at}{FORMATS[seed + at]}", part) for at, part in enumerate(parts)) == whole
    assert tests_of("columns.jsonl", table.select(["y", "k", "c", "x"])) == whole
    assert tests_of("target.csv", table.set_column(3, "y", [Y[::-1]])) == whole, "the target moves no row"
    assert tests_of("twice.csv", pa.concat_tables([table, table])) == 2 * whole, "equal rows do not straddle"


def test_a_table_of_few_combinations_is_split_by_copies(tmp_path: Path) -> None:
    columns = {"sex": every("f", "m"), "class": every(*"abcdefg"), "y": every("no", "no", "no", "no", "yes")}
    found = inspect(written(tmp_path / "t.csv", columns))
    assert (found["split"]["rule"], found["classes"]) == ("copies", {"no": 320, "yes": 80})
    assert found["num_test"] == pytest.approx(0.2 * ROWS, abs=40)
    assert "number of the copy" in found["summary"]


# What was fixed by version 1, and what later data may be.
LATER_ROWS = 1500


def first_rows(rows: int = LATER_ROWS, seed: int = 5) -> pa.Table:
    rng = np.random.default_rng(seed)
    size = rng.lognormal(3, 0.5, rows)
    level = rng.choice(["b", "d"], rows)
    x = rng.normal(size=rows)
    y = x + size / 20 + (level == "d") + rng.normal(0, 0.5, rows)
    code = rng.choice([1, 2, 10], rows)
    return pa.table({"x": x, "size": size, "c": level, "t": rng.random(rows) < 0.4, "k": code, "y": y})


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    """With other values in a column; None is no such column, and a new one stands last."""
    if name not in table.column_names:
        return table.append_column(name, pa.array(values))
    at = table.column_names.index(name)
    return table.remove_column(at) if values is None else table.set_column(at, name, pa.array(values))


@pytest.fixture(scope="module")
def kept(module_folder: Path) -> Path:
    """An artifacts folder with a version of a table and one of classes, made by the command line."""
    rows = first_rows()
    kinds = np.array([10, 9, 7])[np.digitize(rows["x"].to_numpy(), [-0.5, 0.5])]
    retrain("linear-regression", "own", written(module_folder / "first.parquet", rows), "--category", "k")
    retrain("softmax-regression", "kinds", written(module_folder / "kinds.csv", {"x": rows["x"], "y": kinds}))
    return module_folder


@pytest.fixture
def store(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(kept / "artifacts"))
    return kept


def every_row(*values: Any) -> list[Any]:
    return every(*values, rows=LATER_ROWS)


# What a later table has, options, and the errors.
LATER: dict[str, tuple[Columns, str, list[str]]] = {
    "another order": ({}, "", []),
    "text for numbers": ({"x": every_row("many")}, "", ["text-among-numbers x"]),
    "truth for numbers": ({"x": every_row(True, False)}, "", ["retyped-column x"]),
    "times for text": ({"c": np.arange(LATER_ROWS).astype("M8[s]")}, "", ["retyped-column c"]),
    "all at once": (
        {"c": None, "z": every_row(0.5, 7), "t": every_row(0.5, 7)},
        "", ["missing-column c", "new-column z", "retyped-column t"],
    ),
    "whole numbers": ({"x": np.arange(LATER_ROWS) % 97}, "--accept-data", []),
    "a new column, ignored": ({"z": every_row(0.5, 7)}, "--ignore z", []),
    "0 and 1 for truth": ({"t": every_row(1, 0)}, "", []),
    "1.0 and gaps for truth": ({"t": every_row(None, 1.0)}, "--accept-data", []),
    "truth in capitals": ({"t": every_row("0", "TRUE")}, "", []),
    "counts for truth": ({"t": once(every_row(0, 1), 9, 2)}, "", ["retyped-column t"]),
    "a word for truth": ({"t": once(every_row("0", "true"), 9, "no")}, "", ["retyped-column t"]),
    "numbers for text": ({"c": np.arange(LATER_ROWS) % 5}, "", []),
    **{f"no value in {name}": ({name: [None] * LATER_ROWS}, "", [f"turned-missing {name}"]) for name in "xctk"},
    **{f"no value in {name}, accepted": ({name: [None] * LATER_ROWS}, "--accept-data", []) for name in "xctk"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize("case", LATER)
def test_later_data_fit_what_version_1_took_by_name_or_say_all_that_is_wrong(
    case: str, suffix: str, store: Path, tmp_path: Path
) -> None:
    """In whatever order, and without a value in a column of any kind, though not unnoticed."""
    changes, options, errors = LATER[case]
    is_text = case == "times for text" and suffix != ".parquet"  # where times are text
    expected, later = [] if is_text else errors, first_rows().select(["y", "k", "t", "c", "size", "x"])
    for name, values in changes.items():
        later = replaced(later, name, values)
    path = written(tmp_path / f"later{suffix}", later)
    found = inspect(path, "--name", "own", *options.split(), code=4 if expected else 0)
    assert sorted(rules(found, "error")) == expected
    for each in found["findings"]:
        assert each["rule"] != "text-among-numbers" or "--missing" in each["action"]


CONTRADICTIONS = {
    "another split": ("--name own --split-by k", "--new-recipe"),
    "fewer features": ("--name own --features x", "another --name"),
    "another kind": ("--name own --category x", "another --name"),
    "another target": ("--name own --target x", "another --name"),
    "target ignored": ("--ignore y", "y is the target and is to be ignored"),
    "group ignored": ("--ignore c --split-by c", "c is to split by and is to be ignored"),
    "feature ignored": ("--ignore c --features x,c", "c is a feature and is to be ignored"),
    "groups of the target": ("--split-by y", "y is the target and is to split the rows"),
    "time of the target": ("--time-column y", "y is the target and is to split the rows"),
    "part of the target": ("--split-column y", "y is the target and is to split the rows"),
    "two rules": ("--split-by c --time-column x", "one of --split-by, --time-column and --split-column"),
    "a window without a time": ("--window 7d", "needs --time-column"),
    "more than all": ("--test 1.5", "--test 1.5"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_options_that_contradict_each_other_or_what_version_1_has_fixed_are_exit_2(case: str, store: Path) -> None:
    options, words = CONTRADICTIONS[case]
    assert words in json.dumps(inspect(store / "first.parquet", *options.split(), code=2)["error"])


def test_another_share_stays_as_it_was_unless_the_recipe_is_new(store: Path) -> None:
    same = inspect(store / "first.parquet", "--name", "own", "--test", "0.4")
    assert same["split"]["test"] == 0.2
    assert "stays 0.2" in rules(same, "note")["test-share"]
    other = inspect(store / "first.parquet", "--name", "own", "--test", "0.4", "--new-recipe")
    assert other["split"]["test"] == 0.4
    assert other["num_test"] > 1.5 * same["num_test"]


def test_new_levels_are_a_warning_and_new_classes_stop_the_run(store: Path, tmp_path: Path) -> None:
    rows = first_rows()
    levels = written(tmp_path / "t.csv", replaced(rows, "c", every_row("b", "d", "a", "c")))
    assert "a, c" in rules(inspect(levels, "--name", "own"), "warning")["new-levels c"]
    kinds = written(tmp_path / "k.csv", {"x": rows["x"], "y": every_row(10, 11)})
    found = inspect(kinds, "--name", "kinds", code=4)
    assert "11" in rules(found, "error")["new-class y"]
    assert {"7", "9"} <= set(rules(found, "warning")["class-without-rows y"].replace(",", " ").split())


BROKEN: dict[str, Any] = {
    "other-scale size": lambda values: values.to_numpy() * 1000,
    "other-scale y": lambda values: values.to_numpy() / 100,
    "turned-missing size": lambda values: pa.nulls(len(values), pa.float64()),
    "turned-missing c": lambda values: pa.nulls(len(values), pa.string()),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_day_in_a_folder_that_grows_is_exit_4_until_it_is_accepted(
    rule: str, store: Path, tmp_path: Path
) -> None:
    folder, name = written(tmp_path / "days" / "a.parquet", first_rows()).parent, rule.split()[1]
    day = written(folder / "b.parquet", first_rows(300, seed=8))
    inspect(folder, "--name", "own")
    broken = replaced(first_rows(300, seed=8), name, BROKEN[rule](first_rows(300, seed=8)[name]))
    written(day, broken)
    found = inspect(folder, "--name", "own", code=4)
    assert set(rules(found, "error")) == {rule}
    assert "300 new rows of b.parquet" in rules(found, "error")[rule]
    assert "--accept-data" in found["error"]["action"]
    assert rule in rules(inspect(folder, "--name", "own", "--accept-data"), "warning")
    written(day, broken.slice(0, 199))
    inspect(folder, "--name", "own")  # from 200 new rows on


def test_a_broken_day_is_found_though_good_ones_come_with_it(store: Path, tmp_path: Path) -> None:
    written(tmp_path / "days" / "a.parquet", first_rows())
    for number in range(10, 16):
        day = first_rows(250, seed=number)
        day = replaced(day, "size", pa.nulls(250, pa.float64())) if number > 13 else day
        written(tmp_path / "days" / f"day-{number}.parquet", day)
    hours = first_rows(250, seed=16)
    hours = replaced(hours, "x", hours["x"].to_numpy() / 10)
    for hour in range(25):
        written(tmp_path / "days" / f"hour-{hour:02}.parquet", hours.slice(10 * hour, 10))
    found = inspect(tmp_path / "days", "--name", "own", code=4)
    errors = rules(found, "error")
    assert {*errors} == {"turned-missing size", "other-scale x"}
    missing = "all of 250 new rows of day-14.parquet; in the champion's data it was in 0 %; so in 1 more"
    assert missing in errors["turned-missing size"]
    assert "250 new rows of hour-00.parquet to hour-24.parquet" in errors["other-scale x"]
    assert not [key for key in rules(found, "warning") if key.startswith("drift")], "a day is no drift"


@pytest.mark.parametrize("harm", ["bit", "fifo", "folder", "cut", "gone"])
def test_damaged_digests_of_the_champions_rows_stop_the_run_and_without_them_a_word_is_said(
    harm: str, store: Path, tmp_path: Path
) -> None:
    """Without them a day in other units would look like days before."""
    copied = shutil.copytree(store / "artifacts", tmp_path / "artifacts")
    (path,) = copied.glob("datasets/own/*.rows")
    content = bytearray(path.read_bytes())
    path.unlink()
    content[-1] ^= harm == "bit"
    if harm == "fifo":
        os.mkfifo(path)
    elif harm == "folder":
        path.mkdir()
    elif harm != "gone":
        path.write_bytes(content if harm == "bit" else content[:-9])
    later, code = written(tmp_path / "later.parquet", first_rows(1800)), 0 if harm == "gone" else 4
    found = inspect(later, "--name", "own", "--artifacts", str(copied), code=code)
    assert "unknown-rows" in rules(found, "warning") if harm == "gone" else "restore it" in found["error"]["action"]
    verified = typed("verify", "own", "--artifacts", copied)
    assert (verified.returncode, path.name in verified.stderr) == (code, code != 0)


def test_a_column_turned_constant_and_half_the_rows_gone_stop_the_run(store: Path, tmp_path: Path) -> None:
    constant = written(tmp_path / "c.parquet", replaced(first_rows(), "size", [1.0] * LATER_ROWS))
    assert "turned-constant size" in rules(inspect(constant, "--name", "own", code=4), "error")
    few = written(tmp_path / "f.parquet", first_rows().slice(0, LATER_ROWS // 2 - 1))
    assert list(rules(inspect(few, "--name", "own", code=4), "error")) == ["fewer-rows"]
    inspect(few, "--name", "own", "--accept-data")
    inspect(written(tmp_path / "h.parquet", first_rows().slice(0, LATER_ROWS // 2)), "--name", "own")


@pytest.mark.parametrize(("rows", "is_said"), [(1200, True), (700, False)])
def test_drift_is_a_warning_from_a_thousand_new_rows(rows: int, is_said: bool, store: Path, tmp_path: Path) -> None:
    day = first_rows(rows, seed=9)
    day = replaced(day, "size", day["size"].to_numpy() * 1.5)
    found = inspect(written(tmp_path / "t.parquet", pa.concat_tables([first_rows(), day])), "--name", "own")
    assert ("drift size" in rules(found, "warning")) == is_said


@pytest.mark.slow
def test_the_version_keeps_kinds_levels_and_the_training_parts_statistics(
    prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    """Against numpy on the rows that a column calls training; whether a value was missing is said of every row."""
    rng = np.random.default_rng(3)
    part = np.array(every("train", "train", "test", "val"))
    x, level = rng.normal(1000, 30, ROWS), rng.choice(["b", "a"], ROWS)
    gaps, late = np.where(N % 10 == 0, np.nan, x), pa.array(X, mask=part == "val")
    price = 2 * x + 40 * (level == "a") + rng.normal(0, 9, ROWS)
    columns = {"x": pa.array(gaps, from_pandas=True), "z": late, "c": level, "k": rng.choice([10, 9], ROWS)}
    path = written(tmp_path / "t.parquet", columns | {"p": part, "y": price})
    retrain("linear-regression", "own", path, "--category", "k", "--split-column", "p")
    metadata, manifest = (load(artifacts / f"models/own/1/{name}.json") for name in ("metadata", "manifest"))
    assert metadata["parameters"]["columns"] == [
        *({"name": name, "kind": "number", "levels": []} for name in "xz"),
        {"name": "c", "kind": "category", "levels": ["a", "b"]},
        {"name": "k", "kind": "category", "levels": ["9", "10"]},
    ]
    fitted, training = {each["name"]: each for each in manifest["recipe"]["columns"]}, part == "train"
    expected = np.nanmean(gaps[training]), np.nanstd(gaps[training])
    assert (fitted["x"]["mean"], fitted["x"]["scale"]) == pytest.approx(expected, rel=1e-6)
    assert fitted["c"]["counts"] == [int((level[training] == each).sum()) for each in "ab"]
    assert manifest["recipe"]["target"]["mean"] == pytest.approx(price[training].mean(), rel=1e-7)
    assert str(tmp_path) not in json.dumps([manifest, metadata])
    rows = written(tmp_path / "rows.parquet", {"x": [None, 1.0], "z": [None, 1.0], "c": ["a", None], "k": [9, 9]})
    job = ask("predict", rows, "--name", "own", "--max-rejects", "1", "--unknown", "reject")
    assert pq.read_table(job["path"])["rejected"].to_pylist() == [None, "c is missing"]


class GrownTable(NamedTuple):
    """The night after: more rows, of which some are copies and many lack ``t``, new levels, a column to be ignored."""

    artifacts: Path
    later: Path
    report: Any
    added: int

    def document(self, version: int, name: str) -> Any:
        return load(self.artifacts / f"models/own/{version}/{name}.json")

    def digests(self, version: int) -> dict[str, Any]:
        """Of the training rows and of the others, as they are kept."""
        kept = self.document(version, "manifest")["dataset"]["rows"]["path"]
        return safetensors.numpy.load_file(self.artifacts / kept)


@pytest.fixture(scope="module")
def grown(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> GrownTable:
    folder = tmp_path_factory.mktemp("grown")
    at = Path(shutil.copytree(kept / "artifacts", folder / "artifacts"))
    more = replaced(first_rows(250, seed=6), "c", every("e", *["a"] * 4, "b", "d", "b", "d", "b", rows=250))
    more = replaced(more, "t", pa.nulls(250, pa.bool_()))
    rare = replaced(first_rows(9, seed=7), "c", every("rare 0", "rare 1", "rare 2", rows=9))
    rest = pa.concat_tables([rare, first_rows().slice(0, 5)])
    for number, rows in enumerate((first_rows(), more, rest)):
        written(folder / "later" / f"{number}.parquet", rows.append_column("z", rows["x"]))
    given = ("--data", folder / "later", "--ignore", "z", "--accept-data", "--no-predict")
    report = ask("retrain", "own", *given, "--artifacts", at)
    return GrownTable(at, folder / "later", report, 250 + 9 + 5)


def test_what_was_accepted_or_ignored_stops_no_later_night_in_that_column(grown: GrownTable, tmp_path: Path) -> None:
    shutil.copytree(grown.later, tmp_path / "later")
    night = replaced(first_rows(250, seed=11), "t", pa.nulls(250, pa.bool_()))
    night = replaced(night, "z", night["x"].to_numpy())
    broken = replaced(night, "size", night["size"].to_numpy() * 1000)
    for rows, errors in ((night, []), (broken, ["other-scale size"])):
        written(tmp_path / "later" / "night.parquet", rows)
        at = ("--artifacts", str(grown.artifacts))
        found = inspect(tmp_path / "later", "--name", "own", *at, code=4 if errors else 0)
        assert list(rules(found, "error")) == errors
        assert "turned-missing t" in rules(found, "note")
        assert "z" not in found["split"]["features"]


@pytest.mark.slow  # two runs of the flow
def test_a_difference_is_accepted_in_one_column_by_one_factor_until_it_is_forgotten(
    kept: Path, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(shutil.copytree(kept / "artifacts", tmp_path / "artifacts")))
    folder = written(tmp_path / "days" / "first.parquet", first_rows()).parent

    def write_days(*factors: float) -> None:
        for number, factor in enumerate(factors):
            rows = first_rows(250, seed=20 + number)
            written(folder / f"day-{number}.parquet", replaced(rows, "size", rows["size"].to_numpy() * factor))

    write_days(1000)
    accepting = "--accept-data", "--no-predict"
    version = Path(ask("retrain", "own", "--data", folder, *accepting)["model_path"]).parent
    size = "size 1000 times what it was"
    assert [row["accepted"] for row in ask("models", "own")["models"]["own"]] == [[], [size]]
    assert ask("history", "own")["history"]["own"][-1]["reason"] == f"accepted: {size}"
    assert f"{size}, until gradmill retrain own --forget-accepted" in " ".join(typed("models", "own").stdout.split())
    for factors, is_error in (((1000,), False), ((10,), True), ((1e-3,), True), ((1e6,), True), ((1000, 10), True)):
        write_days(1000, *factors)
        errors = rules(inspect(folder, "--name", "own", code=4 * is_error), "error")
        assert [*errors] == ["other-scale size"] * is_error, factors
        assert not is_error or f"size is {factors[-1]:g} times" in errors["other-scale size"]
        (folder / "day-2.parquet").unlink(missing_ok=True)
    write_days(1000, 10)
    manifest = load(version / "manifest.json")
    del manifest["dataset"]["accepted"][0]["medians"]
    seal(version, manifest)  # as earlier releases wrote it
    assert not rules(inspect(folder, "--name", "own"), "error")
    assert ask("models", "own")["models"]["own"][-1]["accepted"] == ["size in any unit"]
    assert rules(inspect(folder, "--name", "own", "--forget-accepted", code=4), "error")
    ask("retrain", "own", "--data", folder, "--forget-accepted", code=4)
    assert ask("history", "own")["history"]["own"][-1]["what"] == "forgot accepted"
    assert rules(inspect(folder, "--name", "own", code=4), "error")
    assert ask("models", "own")["models"]["own"][-1]["accepted"] == []


def test_new_levels_follow_the_old_ones_whose_codes_stay(grown: GrownTable) -> None:
    before, tonight = (grown.document(version, "metadata")["parameters"]["columns"] for version in (1, 2))
    (old,), (new,) = ([each["levels"] for each in listed if each["name"] == "c"] for listed in (before, tonight))
    assert (old, new) == (["b", "d"], ["b", "d", "a", "e", "rare 0", "rare 1", "rare 2"])
    assert [each for each in before if each["name"] != "c"] == [each for each in tonight if each["name"] != "c"]
    (gate,) = [each for each in grown.report["gates"] if each["name"] == "champion_signature"]
    assert (gate["value"], gate["passed"]) == (0, True)


def test_every_level_of_a_training_row_has_a_weight_of_its_own(grown: GrownTable) -> None:
    weights = grown.report["metrics"]["weights"]["c"]
    assert len({*weights.values()}) == len(weights) == 7


def test_digests_of_training_rows_and_of_the_others_are_kept_apart_one_for_every_row(grown: GrownTable) -> None:
    first, second = grown.digests(1), grown.digests(2)
    for version, digests in ((1, first), (2, second)):
        dataset = grown.document(version, "manifest")["dataset"]
        assert [len(digests[part]) for part in ("train", "other")] == [dataset["num_train"], dataset["num_test"]]
    assert all(set(first[part].tolist()) <= set(second[part].tolist()) for part in ("train", "other"))
    assert sum(map(len, second.values())) == sum(map(len, first.values())) + grown.added


def test_order_files_and_format_change_no_digest_and_no_byte_of_the_model(prefect_api: str, tmp_path: Path) -> None:
    rows = first_rows(600)
    shuffled = rows.take(np.random.default_rng(0).permutation(600))
    for at, suffix in enumerate(FORMATS):
        written(tmp_path / "parts" / f"{at}{suffix}", shuffled.slice(150 * at, 150))
    made = []
    for source in (written(tmp_path / "t.parquet", rows), tmp_path / "parts"):
        store = tmp_path / f"store of {source.name}"
        retrain("linear-regression", "own", source, "--category", "k", "--artifacts", store)
        version = store / "models/own/1"
        digest = load(version / "manifest.json")["dataset"]["digest"]
        made.append((digest, (version / "model.onnx").read_bytes()))
    assert made[0] == made[1]
