"""The ports over Ray: real actors in processes of their own, a decoder of two ranks."""

from collections.abc import Iterator

import pytest
import ray

from actors.clients import FrameReaderClient, LanguageDecoderClient, VisionEncoderClient
from actors.cluster import start_local_ray
from actors.launch import start_fleet
from actors.profile import DecoderPool, EncoderPool, Profile, ReaderPool
from tests.port_contract import LIMITS, PortContract, Ports, Scene

pytestmark = pytest.mark.timeout(300)

PROFILE = Profile(
    readers=ReaderPool(num_cpus=0.1),
    encoders=EncoderPool(num_cpus=0.1),
    decoders=DecoderPool(
        tensor_parallel=2,
        num_cpus=0.1,
        kv_tokens=LIMITS.max_tokens,
        question_tokens=LIMITS.question_tokens,
    ),
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.make(tmp_path_factory.mktemp("scene"))


class TestActors(PortContract):
    @pytest.fixture(scope="class")
    def ports(self, scene: Scene) -> Iterator[Ports]:
        start_local_ray(object_store_bytes=200 << 20, num_cpus=2)
        with start_fleet(scene.checkpoint, profile=PROFILE) as fleet:
            (reader,), (encoder,) = fleet.pools.readers, fleet.pools.encoders
            (decoder,) = fleet.pools.decoders
            yield Ports(
                reader=FrameReaderClient(reader, stall_s=60),
                encoder=VisionEncoderClient(encoder, stall_s=60),
                decoder=LanguageDecoderClient(decoder, stall_s=60),
                open_streams=decoder.streams.remote,
            )
        ray.shutdown()
