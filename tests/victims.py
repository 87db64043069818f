"""Processes of a running fleet that a test may harm, by what they are: how to find their ids."""

from collections.abc import Callable

import ray

from actors.fleet import Fleet

VICTIMS: dict[str, Callable[[Fleet], int]] = {
    "reader": lambda fleet: ray.get(fleet.pools.readers[0].process_id.remote()),
    "encoder": lambda fleet: ray.get(fleet.pools.encoders[0].process_id.remote()),
    "first rank": lambda fleet: ray.get(fleet.pools.decoders[0].process_ids.remote())[0],
    "second rank": lambda fleet: ray.get(fleet.pools.decoders[0].process_ids.remote())[1],
    "stream host": lambda fleet: ray.get(fleet.host.process_id.remote()),
}
