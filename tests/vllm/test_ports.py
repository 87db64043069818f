"""The ports over Ray with vLLM as the decoder: what holds for every engine holds for it."""

import asyncio
from collections.abc import Iterator

import pytest
import ray

from actors.clients import FrameReaderClient, LanguageDecoderClient, VisionEncoderClient
from actors.cluster import start_local_ray
from actors.launch import start_fleet
from tests.port_contract import PortContract, Ports, Scene
from tests.vllm.profiles import SHAPE, started, vllm_profile

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("scene"), SHAPE)


class TestVLLM(PortContract):
    @pytest.fixture(scope="class")
    def ports(self, scene: Scene) -> Iterator[Ports]:
        start_local_ray(object_store_bytes=200 << 20, num_cpus=2)
        with start_fleet(scene.checkpoint, profile=vllm_profile()) as fleet:
            asyncio.run(started(fleet))
            (reader,), (encoder,) = fleet.pools.readers, fleet.pools.encoders
            (decoder,) = fleet.pools.decoders
            yield Ports(
                reader=FrameReaderClient(reader, stall_s=300, answer_s=300),
                encoder=VisionEncoderClient(encoder, stall_s=300, answer_s=300),
                decoder=LanguageDecoderClient(decoder, stall_s=300, answer_s=300),
                open_streams=decoder.streams.remote,
            )
        ray.shutdown()
