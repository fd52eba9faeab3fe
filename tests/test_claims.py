"""The table of claims names tests that are there, and every interface by its word."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
INTERFACES = {"command line", "flow", "document", "arithmetic", "none yet"}


def test_every_claim_stands_once_and_names_tests_that_are_there_and_an_interface() -> None:
    found = {
        f"{path.name}::{name}"
        for path in TESTS.glob("test_*.py")
        for name in re.findall(r"(?m)^def (test_\w+)", path.read_text())
    }
    text, claims = (TESTS / "claims.md").read_text(), set()
    for claim, tests, interface in re.findall(r"(?m)^\| (.+) \| (.+) \| (.+) \|$", text):
        if claim != "claim":
            assert claim not in claims, claim
            claims.add(claim)
            named = set(re.findall(r"`(.+?)`", tests))
            assert named, claim
            assert named <= found, claim
            assert set(interface.split(", ")) <= INTERFACES, claim
    assert len(claims) == text.count("\n| ") - text.count("\n| claim |")
    assert re.findall(r"(?m)^## (4\.\d)", text) == [f"4.{number}" for number in range(1, 7)]
