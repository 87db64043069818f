"""The table of faults names tests that exist."""

import re
from pathlib import Path

from tests.hostile import CASES

TESTS = Path(__file__).parents[1]
TABLE = (TESTS / "FAULTS.md").read_text()


def test_every_test_that_the_table_of_faults_names_is_there() -> None:
    defined = {
        name
        for path in TESTS.glob("*/test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    named = set(re.findall(r"\b(test_[a-z]\w+)(?!\.py)\b", TABLE)) - {"test_fault_table"}
    assert named - defined == set()


def test_every_case_of_a_bad_file_in_the_table_is_one() -> None:
    text = TABLE.replace("_and_its_neighbours_do_not_notice", "")
    cases = set(re.findall(r"test_a_bad_file_has_its_outcome\[(.+?)\]", text))
    assert cases <= set(CASES)
    numbers = {int(row) for row in re.findall(r"^\| (\d+) \|", TABLE, flags=re.MULTILINE)}
    assert numbers == {*range(1, 77)}
