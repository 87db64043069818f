"""Where the ranks of a replica find each other, and how they join."""

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address

import ray
import torch.distributed as dist

from pipeline.errors import Transient

COLLECTIVE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class MeetingPlace:
    """A port of the leader's node that is open already: nobody else can take it meanwhile."""

    host: str
    port: int
    size: int
    start_s: float  # for how long whoever is there waits for the others


def listen(*, size: int, start_s: float) -> tuple[MeetingPlace, dist.Store]:
    """Open one, on this node's address in the cluster and on no other; its store is the leader's.

    It ends with the store.
    """
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    listener = socket.create_server((host, 0))
    place = MeetingPlace(host, listener.getsockname()[1], size, start_s)
    return place, _store(place, listener=listener)


def join(place: MeetingPlace, rank: int, *, device: str, store: dist.Store | None = None) -> None:
    """Return when all ranks are one group. store: the leader's own; Transient if it fails."""
    try:
        if ip_address(place.host).is_loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it goes by the machine's name
        store = store or _store(place)
        # They come as far apart as their processes start; what follows is short for all of them.
        store.set(f"rank {rank}", "here")
        store.wait([f"rank {each}" for each in range(place.size)], timedelta(seconds=place.start_s))
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=place.size,
            timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_S),
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise Transient(f"rank {rank} found no others at {place.host}: {reason}") from error


def _store(place: MeetingPlace, *, listener: socket.socket | None = None) -> dist.Store:
    """torch's own socket would listen on every interface."""
    return dist.TCPStore(
        place.host,
        place.port,
        place.size,
        is_master=listener is not None,
        timeout=timedelta(seconds=place.start_s),
        wait_for_workers=False,
        master_listen_fd=None if listener is None else listener.detach(),
    )
