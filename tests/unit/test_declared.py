"""Every row of a demo model is flagged, wherever its folder lies and whatever it is called."""

import asyncio
import json
import shutil

import pytest

from jobs.models import DEMO_MODEL, model_folder
from pipeline.analyse import analyse, failure
from pipeline.errors import BadInput, CheckpointError, FailureCode
from pipeline.local import LocalFlow, LocalModel
from pipeline.model.declared import row_flags
from pipeline.model_identity import ModelIdentity
from pipeline.tasks.tasks import Tasks
from pipeline.video.options import PlanOptions
from pipeline.video.source import Source
from tests.media_factory import Clip, make
from tests.tiny_folder import write_folder


@pytest.fixture
def copy(tmp_path):
    """The demo model under another name."""
    return shutil.copytree(DEMO_MODEL, tmp_path / "my-model")


def test_a_copy_says_what_it_is_in_good_and_in_failed_rows(copy, tmp_path):
    clip = Source.of(make(tmp_path, Clip(num_frames=6, fps=6)))
    flow = LocalFlow(LocalModel.load(copy), options=PlanOptions())
    try:
        good = asyncio.run(analyse(clip, Tasks(), flow=flow, video_id="a"))
    finally:
        flow.close()
    assert (good.status, good.flags) == ("ok", ("demo_model",))
    error = BadInput(FailureCode.NOT_FOUND, "gone")
    bad = failure(clip, Tasks(), ModelIdentity.of(copy), video_id="a", error=error)
    assert bad.flags == ("demo_model",)


def test_other_models_rows_have_no_such_flag(tmp_path):
    assert row_flags(write_folder(tmp_path / "vidray-demo")) == ()


def test_a_declaration_of_another_kind_is_refused(copy):
    file = copy / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"vidray": {"demo_model": "perhaps"}}))
    with pytest.raises(CheckpointError, match="config.json: vidray.demo_model"):
        row_flags(copy)


def test_the_bundled_model_is_meant_by_its_name_unless_there_is_such_a_folder(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    named = DEMO_MODEL.relative_to(DEMO_MODEL.parent)
    assert model_folder(named) == DEMO_MODEL
    assert capsys.readouterr().err == ""
    named.mkdir()
    assert model_folder(named) == named
    assert model_folder(None) == DEMO_MODEL
