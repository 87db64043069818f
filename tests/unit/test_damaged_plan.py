"""A job whose plan is damaged: what is advised is what helps."""

from pathlib import Path

import pytest

from tests.conftest import Vidray


@pytest.mark.parametrize("command", [("batch", "status"), ("fsck",), ("fsck", "--repair")])
def test_a_damaged_plan_is_put_back_and_not_promised_a_repair(
    command: tuple[str, ...], tmp_path: Path, vidray: Vidray
) -> None:
    (tmp_path / "plan.json").write_text("no plan")
    code, said, error = vidray(*command, tmp_path)
    assert code == 1
    assert "plan.json is no plan" in error
    assert "put it back from a copy" in error
    assert "--repair" not in said + error
