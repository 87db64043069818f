"""The ports in this process: the stages themselves, and the actors without Ray between."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors import frame_reader, language_decoder, vision_encoder
from actors.clients import FrameReaderClient, LanguageDecoderClient, VisionEncoderClient
from actors.profile import DecoderPool, Profile
from pipeline.config import DecodeLimits
from pipeline.engine.engine import Engine
from pipeline.local import LocalModel
from pipeline.stages.encoding import EncodingStage
from pipeline.stages.reading import ReadingStage
from tests.local_actors import LocalHandle, plain, without_ray
from tests.port_contract import LIMITS, PortContract, Ports, Scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("scene"))


def stages(checkpoint: Path) -> Ports:
    model = LocalModel.load(checkpoint, limits=LIMITS)
    engine = Engine(model.rank)

    async def open_streams() -> object:
        return engine.streams

    return Ports(
        reader=ReadingStage(DecodeLimits()),
        encoder=EncodingStage(model.encoder, thread=ThreadPoolExecutor(1)),
        decoder=engine,
        open_streams=open_streams,
    )


def clients(checkpoint: Path) -> Ports:
    profile = Profile(
        decoders=DecoderPool(kv_tokens=LIMITS.max_tokens, question_tokens=LIMITS.question_tokens)
    )
    reader, encoder, decoder = (
        LocalHandle(plain(frame_reader.FrameReaderActor)(DecodeLimits(), "pyav", 1)),
        LocalHandle(plain(vision_encoder.VisionEncoderActor)(str(checkpoint), profile)),
        LocalHandle(plain(language_decoder.LanguageDecoderActor)(str(checkpoint), profile)),
    )
    return Ports(
        reader=FrameReaderClient(reader, stall_s=60),
        encoder=VisionEncoderClient(encoder, stall_s=60),
        decoder=LanguageDecoderClient(decoder, stall_s=60),
        open_streams=decoder.streams.remote,
    )


class TestStagesAndActors(PortContract):
    @pytest.fixture(params=[stages, clients])
    def ports(self, request, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Ports:
        without_ray(monkeypatch)
        return request.param(scene.checkpoint)
