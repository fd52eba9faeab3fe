"""The table of claims names tests that are there, and every interface by its word."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
INTERFACES = {"command line", "flow", "document", "arithmetic", "none yet", "not built yet"}


def claims() -> list[list[str]]:
    """Claim, tests and interface of every row."""
    lines = (TESTS / "claims.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[0] != "claim"]


def test_every_claim_names_tests_that_are_there_and_an_interface() -> None:
    found = {
        f"{path.name}::{node.name}"
        for path in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    rows = claims()
    for claim, tests, interface in rows:
        named = re.findall(r"`(.+?)`", tests)
        assert bool(named) == (interface != "not built yet"), claim
        assert set(named) <= found, claim
        assert set(interface.split(", ")) <= INTERFACES, claim
    assert len({claim for claim, *_ in rows}) == len(rows), "a claim stands once"


def test_every_contract_has_claims() -> None:
    headings = re.findall(r"^## (4\.\d)", (TESTS / "claims.md").read_text(), re.MULTILINE)
    assert headings == [f"4.{number}" for number in range(1, 7)]
