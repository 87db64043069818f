"""A job whose plan is damaged: what is advised is what helps."""

from pathlib import Path

import pytest

from pipeline.store.commit import part_key
from pipeline.store.local import LocalStore
from pipeline.store.retries import nth_retry
from tests.conftest import Vidray
from tests.job_rows import commit_job


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


@pytest.mark.parametrize("command", [("batch", "status"), ("fsck",), ("fsck", "--repair")])
def test_a_lost_list_of_videos_is_no_finished_job_for_anybody(
    command: tuple[str, ...], tmp_path: Path, vidray: Vidray
) -> None:
    store = LocalStore(str(tmp_path))
    plan = commit_job(store)
    assert vidray(*command, tmp_path)[0] == 3  # one of its videos failed
    store.delete(plan.shards[0].key)
    code, said, error = vidray(*command, tmp_path)
    assert code == 1
    assert plan.shards[0].key in said + error
    assert "--repair" not in said + error


def test_a_job_is_not_finished_while_failures_are_made_again(
    tmp_path: Path, vidray: Vidray
) -> None:
    store = LocalStore(str(tmp_path))
    commit_job(store)
    commit_job(nth_retry(store, 1).store, parts=(0,))
    code, said, _ = vidray("batch", "status", tmp_path)
    assert (code, vidray("fsck", tmp_path)[0]) == (1, 1)
    assert "retries  1, 1 not finished" in said


def test_a_part_that_cannot_be_read_is_told_with_one_advice(tmp_path: Path, vidray: Vidray) -> None:
    store = LocalStore(str(tmp_path))
    commit_job(store)
    (tmp_path / part_key(1)).write_bytes(b"junk")
    code, said, error = vidray("batch", "status", tmp_path)
    assert code == 1
    assert (said + error).count("--repair") == 1
