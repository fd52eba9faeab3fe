"""Own data at the command line: what is said of good and bad tables before anything is trained."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

import flows.cli.app
from flows.cli.options import given_options
from tasks.data.io.batches import table_batches
from tasks.data.io.discovery import find_table
from tasks.data.io.tabular import Selection
from tasks.errors import DataError, UsageError
from tasks.parameters import Data, InspectParameters, RetrainParameters
from tasks.store import artifact_paths, own_data, regular_files

HEADER = "area,city,price\n"


def houses(rows: int = 200, seed: int = 0) -> str:
    """A table whose prices follow from areas and cities, nearly."""
    rng = np.random.default_rng(seed)
    worth = {"Köln": 10_000, "Berlin": 0, "München": 90_000}
    lines = []
    for _ in range(rows):
        area, city = rng.uniform(40, 200), rng.choice(list(worth))
        lines.append(f"{area:.2f},{city},{3000 * area + worth[city] + rng.normal(0, 9000):.0f}\n")
    return HEADER + "".join(lines)


@pytest.fixture
def folder(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = flows.cli.app.run(["inspect", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_inspect_says_what_a_table_is_like(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses())
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", "--json")
    found = json.loads(out)
    assert code == 0
    assert {each["name"]: (each["role"], each["kind"]) for each in found["columns"]} == {
        "area": ("feature", "number"), "city": ("feature", "category"), "price": ("target", "number")
    }  # fmt: skip
    assert (found["rows"], found["num_train"] + found["num_test"]) == (200, 200)
    assert found["command"].endswith(
        f"retrain linear-regression --name houses --data {folder}/houses.csv --target price"
    )


def test_inspect_says_how_rows_are_split_and_how_many_have_no_target(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "area_of_all_floors_and_of_the_garden_house_in_square_metres_as_the_register_of_2024_has_it"
    lines = houses().replace("area", name, 1).splitlines()
    unpriced = [f"{each.rpartition(',')[0]}," for each in lines[-3:]]
    (folder / "houses.csv").write_text("\n".join([*lines[:-3], *unpriced]))
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price")
    assert code == 0
    assert "by a hash of their features); 3 rows without a target left out" in " ".join(out.split())
    assert name in "".join(line.split("  ")[0] for line in out.splitlines()), "the whole name, to copy"


def test_inspect_trains_and_keeps_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses())
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert inspected(capsys, "houses.csv", "--target", "price")[0] == 0
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_names_that_look_like_markup_are_shown_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = houses().replace("area", "area [sqm]").replace("Berlin", "B[/b]")
    (folder / "h[1].csv").write_text(text)
    code, out, _ = inspected(capsys, "h[1].csv", "--target", "price")
    assert code == 0
    assert all(each in out for each in ("area [sqm]", "B[/b]", "h[1].csv"))


@pytest.mark.parametrize("target", ["price", "pri\x1b[2Jce"])
def test_a_terminal_obeys_nothing_that_stands_in_data(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = houses().replace("area", "\x1b]0;name\x07area").replace("Berlin", "\x1b[31mBerlin\x9b2J")
    (folder / "t.csv").write_text(text + "\x1b[2Jbig,Berlin,1e400\n")
    _, out, err = inspected(capsys, "t.csv", "--target", target, "--category", "\x1b]0;name\x07area")
    assert "\\x1b]0;name\\x07area" in out
    assert not set("\x07\x1b\x9b") & set(out + err)


def test_text_to_predict_means_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses())
    _, out, _ = inspected(capsys, "houses.csv", "--target", "city", "--ignore", "price", "--json")
    assert "retrain softmax-regression --name houses" in json.loads(out)["command"]


@pytest.mark.parametrize(
    ("kind", "options", "model", "ignore"),
    [
        (lambda n: n % 2, [], "softmax-regression", "id"),
        (lambda n: n % 5 + 1, [], "softmax-regression", "id"),
        (lambda n: n % 2, ["--ignore", "area"], "softmax-regression", "area,id"),
        (lambda n: n % 2, ["--features", "id,area"], "softmax-regression", None),
        (lambda n: 9 if n == 7 else n % 2, [], "linear-regression", "id"),  # which has no training rows as a class
        (lambda n: n % 40, [], "linear-regression", "id"),
    ],
)
def test_the_command_offered_is_what_the_findings_advise(
    kind: Callable[[int], int],
    options: list[str],
    model: str,
    ignore: str | None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = (f"{n + 1000},{n % 17},{n * n % 11 / 8},{kind(n)}\n" for n in range(400))
    (folder / "t.csv").write_text("id,area,rooms,kind\n" + "".join(rows))
    code, out, _ = inspected(capsys, "t.csv", "--target", "kind", *options, "--json")
    document = json.loads(out)
    command = document["command"].split()
    assert code == 0
    assert command[command.index("retrain") + 1] == model
    assert bool(document["classes"]) == (model == "softmax-regression"), "the losses are those of the model"
    assert (command[command.index("--ignore") + 1] if "--ignore" in command else None) == ignore


BAD: dict[str, tuple[bytes, list[str], int, str]] = {
    "empty": (b"", [], 4, "empty"),
    "header only": (HEADER.encode(), [], 4, "no rows"),
    "one row": ((HEADER + "1,Rom,2\n").encode(), [], 4, "at least 10 and 20"),
    "no such target": (houses().encode(), ["--target", "cost"], 4, "cost"),
    "no such feature": (houses().encode(), ["--features", "size"], 4, "size"),
    "constant target": ((HEADER + "1.5,Rom,7\n" * 99).encode(), [], 4, "price is 7"),
    "infinite target": ((houses() + "1,Berlin,1e400\n").encode(), [], 4, "inf"),
    "no target at all": ((HEADER + "1.5,Rom,\n" * 99).encode(), [], 4, "price"),
    "a target with a word in it": ((houses() + "50,Berlin,n/a\n").encode(), [], 4, "text, as 'n/a' in row 200"),
    "a target written otherwise": (
        (HEADER + "".join(f"{n},Rom,€ {n}\n" for n in range(99))).encode(),
        [],
        4,
        "numbers are written as 1234.5",
    ),
    "a page of the web": (b"<!DOCTYPE html>\n<p>Sign in, please</p>\n", [], 4, "a page of the web"),
    "a workbook": (b"PK\x03\x04" + houses().encode(), [], 4, "Excel"),
    "a title above the header": (b"Houses of 2024\n" + houses().encode(), [], 4, "remove what stands above"),
    "text in a number column": ((houses() + "big,Berlin,7\n").encode(), [], 4, "'big'"),
    "ragged rows": ((houses() + "1,2\n").encode(), [], 4, "row 200, with 2"),
    "duplicate columns": (b"area,area,price\n1,2,3\n", [], 4, "'area'"),
    "an empty column name": (b"area,,price\n1,2,3\n", [], 4, "name"),
    "UTF-16": (houses().encode("utf-16"), [], 4, "UTF-16"),
    "NUL bytes": (houses().encode() + b"\0\0\0,Berlin,7\n", [], 4, "NUL"),
    "a binary file": (bytes(range(256)) * 40, [], 4, "cannot be read"),
    "two ways of splitting": (houses().encode(), ["--split-by", "city", "--time-column", "area"], 2, "one of"),
    "a share of more than all": (houses().encode(), ["--test", "1.5"], 2, "--test 1.5"),
    "2001 columns": (
        (",".join(f"c{i}" for i in range(2001)) + "\n" + ",".join(["1"] * 2001) + "\n").encode(),
        ["--target", "c0"],
        4,
        "2,000",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_is_not_fit_says_why(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, options, expected, words = BAD[case]
    (folder / "houses.csv").write_bytes(content)
    target = [] if "--target" in options else ["--target", "price"]
    code, _, err = inspected(capsys, "houses.csv", *target, *options)
    assert (code, words in err) == (expected, True), err
    assert "expected: " in err
    assert "to do: " in err


def _write_row_names(folder: Path, form: str) -> str:
    """The table of houses with names of its rows, as pandas and R write them; returns the file's name."""
    frame = pd.read_csv(io.StringIO(houses()))
    if form.endswith("names"):
        frame.index = pd.Index([f"house {n}" for n in frame.index])
    if form.startswith("parquet"):
        frame.to_parquet(folder / "rows.parquet", index=True)
        return "rows.parquet"
    text = frame.to_csv()
    (folder / "rows.csv").write_text(text[1:] if form == "R names" else text)  # R's header is one name shorter
    return "rows.csv"


@pytest.mark.parametrize("form", ["csv numbers", "csv names", "R names", "parquet numbers", "parquet names"])
def test_row_names_of_pandas_and_r_are_left_out_and_said_aloud(
    form: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = inspected(capsys, _write_row_names(folder, form), "--target", "price", "--json")
    document = json.loads(out)
    assert code == 0
    roles = {each["name"]: each["role"] for each in document["columns"]}
    (index,) = {*roles} - {"area", "city", "price"}
    assert (roles.pop(index), roles) == ("left out", {"area": "feature", "city": "feature", "price": "target"})
    assert [each["column"] for each in document["findings"] if each["rule"] == "index"] == [index]


def test_a_first_column_without_a_name_that_names_no_rows_is_a_column(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f"{n % 7},{line}" for n, line in enumerate(houses().splitlines()[1:]))
    (folder / "t.csv").write_text("\n".join([",area,city,price", *lines]))
    code, out, _ = inspected(capsys, "t.csv", "--target", "price", "--json")
    assert code == 0
    assert ("Unnamed: 0", "feature") in [(each["name"], each["role"]) for each in json.loads(out)["columns"]]


@pytest.mark.parametrize("values", [("0,5", "1,25"), ("€ 3", "€ 1,250.50"), ("12.5%", "8%"), ("1/2/2024", "31.12.24")])
def test_numbers_and_dates_that_are_not_written_as_such_are_named(
    values: tuple[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f'{n},"{values[n % 2]}",{n % 7 + n}\n' for n in range(99))
    (folder / "houses.csv").write_text("area,fee,price\n" + "".join(lines))
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", "--json")
    (found,) = [each for each in json.loads(out)["findings"] if each["rule"] == "looks-like"]
    assert code == 0
    assert f"as '{values[0]}' in row 0" in found["found"]


def test_more_numbers_than_rows_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = np.random.default_rng(0).normal(size=(60, 70))
    np.savetxt(folder / "t.csv", table, delimiter=",", header=",".join(f"x{n}" for n in range(70)), comments="")
    code, out, _ = inspected(capsys, "t.csv", "--target", "x0")
    assert code == 0
    assert "69 numbers and " in out
    assert "--weight-decay auto" in out


def test_inspect_needs_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = inspected(capsys)
    assert (code, "DATA is missing" in err) == (2, True)


@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
@pytest.mark.parametrize("command", ["retrain", "tune"])
def test_whoever_forgets_the_target_is_told_of_it_before_any_work(
    command: str, model: str, folder: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "houses.csv").write_text("area,price\n" + "1,2\n" * 30)
    code = flows.cli.app.run([command, model, "--name", "houses", "--data", str(folder / "houses.csv")])
    said = capsys.readouterr().err
    assert (code, f"no --target for {folder}/houses.csv" in said, "name it with --target" in said) == (2, True, True)
    assert not list(artifacts.glob("models/*"))


@pytest.mark.parametrize(("step", "is_said"), [(1, True), (-1, True), (3, False), (0.5, False)])
def test_numbers_that_count_the_rows_may_be_ids(
    step: float, is_said: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *rows = houses(rows=200).splitlines()
    numbered = "".join(f"{9000 + step * n:g},{row}\n" for n, row in enumerate(rows))
    (folder / "houses.csv").write_text(f"id,{header}\n{numbered}")
    _, out, _ = inspected(capsys, "houses.csv", "--target", "price")
    assert ("--ignore id if it is one" in out) == is_said


def test_a_target_of_few_numbers_may_be_meant_as_classes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "t.csv").write_text("area,sold\n" + "".join(f"{n % 31},{int(n % 3 == 0)}\n" for n in range(99)))
    _, out, _ = inspected(capsys, "t.csv", "--target", "sold")
    assert "softmax-regression learns them as classes" in out
    assert "validation loss (cross-entropy in nats)" in out, "of the model that is offered"
    assert "retrain softmax-regression" in out
    _, out, _ = inspected(capsys, "t.csv", "--target", "sold", "--category", "sold")
    assert "squared error" not in out
    assert "retrain softmax-regression" in out


@pytest.mark.parametrize("option", ["--split-column", "--time-column"])
def test_a_column_that_splits_nothing_is_the_only_fault(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "houses.csv").write_text(houses())
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", option, "city", "--json")
    found = json.loads(out)
    (fault,) = [each for each in found["findings"] if each["severity"] == "error"]
    assert code == found["error"]["exit_code"] == 4
    assert fault["found"] == found["error"]["found"]
    assert "erlin" in fault["found"]


def test_all_that_is_wrong_is_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses(rows=99) + "big,Berlin,1e400\n")
    code, _, err = inspected(capsys, "houses.csv", "--target", "price", "--features", "area,size")
    assert code == 4
    assert all(word in err for word in ("'big'", "inf", "size"))


def test_formats_and_dialects_are_one_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = houses()
    (folder / "plain.csv").write_text(text)
    (folder / "bom.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (folder / "semicolon.csv").write_text(text.replace(",", ";"))
    (folder / "excels.csv").write_bytes(b"\xef\xbb\xbfsep=;\r\n" + text.replace(",", ";").encode())
    (folder / "packed.csv.gz").write_bytes(gzip.compress(text.encode()))
    names = text.splitlines()[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in text.splitlines()[1:]]
    typed = [{"area": float(row["area"]), "city": row["city"], "price": int(row["price"])} for row in rows]
    (folder / "lines.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in typed))
    seen = []
    for name in ("plain.csv", "bom.csv", "semicolon.csv", "excels.csv", "packed.csv.gz", "lines.jsonl"):
        code, out, err = inspected(capsys, name, "--target", "price", "--json")
        assert code == 0, err
        found = json.loads(out)
        seen.append((found["columns"], found["num_train"], found["num_test"]))
    assert seen[1:] == seen[:-1]


@pytest.mark.parametrize(
    "options", [["--ignore", "area,garden"], ["--ignore", "area, garden"], ["--ignore", "area", "--ignore", "garden"]]
)
def test_no_name_of_a_list_is_lost(options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{n},{n % 2},{n % 7},{n % 5}\n" for n in range(99))
    (folder / "houses.csv").write_text("area,garden,rooms,price\n" + rows)
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", *options, "--json")
    found = json.loads(out)
    assert code == 0
    assert {each["name"] for each in found["columns"]} == {"rooms", "price"}
    assert found["command"].endswith("--ignore area,garden")


def test_the_line_that_excel_writes_above_a_header_is_none_of_the_rows_to_predict(tmp_path: Path) -> None:
    text, tables = houses(rows=9).replace(",", ";"), []
    for name, above in {"plain.csv": "", "excels.csv": "sep=;\n"}.items():
        (tmp_path / name).write_text(above + text)
        (file,) = find_table(str(tmp_path / name)).files
        _, *batches = table_batches(file, Selection(), "reject")
        tables.append(pa.Table.from_batches(batches))
    assert tables[0].num_rows == 9
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("file", "name"), [("houses.csv", "houses"), ("My Data 2.csv", "my-data-2"), ("價.csv", "NAME")]
)
def test_own_data_without_a_name_are_answered_with_one(
    file: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / file).write_text(houses())
    capsys.readouterr()
    command = ["retrain", "linear-regression", "--data", file, "--target", "price", "--json"]
    assert flows.cli.app.run(command) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["found"] == f"no --name for {file}"
    assert error["action"] == f"add --name {name}"


@pytest.mark.parametrize("options", ["", "--target price", "--name houses", "--name houses --target price"])
@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
def test_data_that_are_not_there_are_told_before_what_else_is_missing(
    model: str, options: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["retrain", model, "--data", "nofile.csv", *options.split()]) == 4
    assert f"no file {folder}/nofile.csv" in capsys.readouterr().err
    assert flows.cli.app.run(["retrain", "houses", "--data", "gone", *options.split()]) == 4
    assert f"no file {folder}/gone" in capsys.readouterr().err, "nor a folder of images: the name may keep a table"


@pytest.mark.parametrize(
    "command",
    ["retrain", "models", "show", "verify", "history", "report", "rollback", "freeze", "evaluate", "tune", "predict"],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    command: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifacts / "models" / "houses" / "1").mkdir(parents=True)
    (artifacts / "models" / "flowers" / "1").mkdir(parents=True)
    option = ["--name"] if command == "predict" else []
    for typed, answer in (("huses", "did you mean houses?"), ("zzz", "name ")):
        data = ["x.csv"] if command == "evaluate" else []
        assert flows.cli.app.run([command, *option, typed, *data]) == 2
        assert f"to do: {answer}" in capsys.readouterr().err


def test_a_path_from_the_folder_above_is_written_without_the_way_there(folder: Path) -> None:
    (folder / "link").symlink_to("/usr/bin")
    assert regular_files.absolute("../shop/new.csv") == folder.parent / "shop/new.csv"
    assert regular_files.absolute("..") == folder.parent
    assert regular_files.absolute("link/../x") == folder / "link/../x", "which is /usr/x"


def test_options_are_typed_again_as_they_were_given(folder: Path) -> None:
    given = InspectParameters(source="x.csv", target="price", ignore=("a,b", 'c"d'), test=0.3)
    assert given_options(given, {"source", "name"}) == [
        "--target", "price", "--ignore", '"a,b","c""d"', "--test", "0.3"
    ]  # fmt: skip
    assert given_options(given.model_copy(update={"ignore": (" a", "b")}), {"source", "name", "target", "test"}) == [
        "--ignore", '" a","b"'
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["--ignore", "--features", "--category"])
def test_a_line_break_in_a_list_of_columns_needs_quotes(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.csv").write_text(houses().replace("city", '"ci\nty"', 1))
    code, out, err = inspected(capsys, "t.csv", "--target", "price", option, "ci\nty")
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == [
        "expected: values by commas, one with a line break in double quotes",
        "to do: quote it",
    ]
    assert inspected(capsys, "t.csv", "--target", "price", option, '"ci\nty"')[0] == 0


FAULTS = [
    ({"data": {"source": "x.csv", "target": "y"}}, "a --name of their own"),
    ({"name": "a", "data": {"source": "x", "features": ["b"]}}, "for tables"),
    ({"name": "a", "data": {"source": "x", "target": "y", "side": 8, "channels": "rgb"}}, "--side and --channels"),
    ({"name": "a", "data": {"source": "x"}, "training": {"model": "linear-regression"}}, "softmax-regression learns"),
    ({"name": "a", "data": {"target": "y"}}, "go with --data"),
    ({"name": "a", "data": {"source": "x.csv", "target": "y", "resize": 8}}, "resize"),
    ({"name": "a", "data": {"source": "https://me:key@host/x.csv", "target": "y"}}, "credentials"),
    ({"name": "a", "data": {"source": "x.csv", "target": "y", "window": "90d"}}, "needs --time-column"),
    ({"name": "a", "data": {"source": "x.csv", "target": "y", "time_column": "t", "window": "90"}}, "pattern"),
    ({"training": {"class_weight": "balanced"}}, "on own data"),
    ({"training": {"weight_decay": "auto"}}, "for own data"),
]


@pytest.mark.parametrize(("document", "words"), FAULTS)
def test_options_that_do_not_go_together_are_refused(document: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RetrainParameters.model_validate(document)


def test_own_data_decide_what_is_not_given() -> None:
    document = {"name": "a", "training": {"lr": 0.5}, "data": {"source": "x.csv", "target": "y"}}
    parameters = RetrainParameters.model_validate(document)
    assert (parameters.training.lr, parameters.training.num_epochs, parameters.dataset) == (0.5, None, "a")
    assert RetrainParameters.model_validate_json(parameters.model_dump_json()) == parameters


def test_a_name_that_is_not_kept_says_which_are(artifacts: Path) -> None:
    with pytest.raises(UsageError) as caught:
        own_data.again("houses", {})
    assert "linear-regression" in caught.value.expected
    assert "--name" in caught.value.action


def test_a_source_is_remembered_and_read_strictly(artifacts: Path) -> None:
    own_data.remember("houses", Data(source="/data/*.csv", target="y", min_new_rows=7))
    written = json.loads(artifact_paths.source("houses").read_text())
    assert written == {"schema_version": 1, "source": "/data/*.csv", "min_new_rows": 7}
    artifact_paths.source("houses").write_text('{"source": 7}')
    with pytest.raises(DataError, match=r"source\.json"):
        own_data.Source.read(artifact_paths.source("houses"))
