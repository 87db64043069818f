"""Actors that do nothing, and import nothing: many of them are soon there."""

from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote
class Dummy:
    """Takes the place of an actor, and says on which cards it was put."""

    def __init__(self, *arguments: object) -> None:
        return

    def gpus(self) -> list[int]:
        return [int(each) for each in ray.get_gpu_ids()]

    async def process_id(self) -> int:
        return 0


@ray.remote
class DummyLeader:
    """As a decoder's leader: its followers are its own actors, each in a bundle of its group.

    vLLM's ranks are all followers, without a processor of their own: its leader has no card.
    """

    def __init__(self, folder: str, profile: Any) -> None:
        pool, group = profile.decoders, get_current_placement_group()
        is_apart = pool.engine == "vllm" and pool.tensor_parallel > 1
        self._followers = [
            Dummy.options(
                num_cpus=0 if is_apart else pool.num_cpus,
                num_gpus=pool.num_gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    group, placement_group_bundle_index=rank
                ),
            ).remote()
            for rank in range(0 if is_apart else 1, pool.tensor_parallel)
        ]

    def gpus(self) -> list[int]:
        own = [int(each) for each in ray.get_gpu_ids()]
        return own + [gpu for each in self._followers for gpu in ray.get(each.gpus.remote())]
