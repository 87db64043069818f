"""Starts every actor of a deployment, each in its place, and stops them all at the end."""

from collections.abc import (
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.calls import Handle
from actors.cluster import connected, node_resources
from actors.fleet import Fleet
from actors.frame_reader import FrameReaderActor
from actors.language_decoder import LanguageDecoderActor
from actors.placement import Bundle, Placement
from actors.pools import NAMESPACE, Pools
from actors.profile import Profile
from actors.stream_host import MAX_CALLS, StreamHostActor
from actors.terms import Terms, host_name, terms_of
from actors.vision_encoder import VisionEncoderActor
from actors.vllm.version import require_vllm
from actors.vllm_decoder import VLLMDecoderActor
from pipeline.config import DecodeLimits
from pipeline.families.qwen2_vl.sampling import load_family
from pipeline.video.libraries import Reader
from pipeline.video.options import PlanOptions
from pipeline.video.plan import Planner

ROOM_S = 5.0  # that actors which come later wait for the room of those that come first
DECODERS: Mapping[str, Any] = {"vidray": LanguageDecoderActor, "vllm": VLLMDecoderActor}


@contextmanager
def start_fleet(
    checkpoint: Path,
    *,
    options: PlanOptions | None = None,
    profile: Profile | None = None,
    limits: DecodeLimits | None = None,
    reader: Reader = "pyav",
    address: str | None = None,
    exports_metrics: bool = False,
    name: str | None = None,
) -> Iterator[Fleet]:
    """Start every actor, and stop them all at the end.

    address: of a running cluster; without it Ray starts here, on loopback only, and stops too.
    exports_metrics: of a Ray that starts here, which takes longer then. name: by which others on
    the cluster share these actors; where it runs already, theirs are used, and a stream host alone
    is started and stopped. ConfigError where they were started for something else.
    """
    profile = profile or Profile()
    if profile.decoders.engine == "vllm":
        require_vllm()
    terms = Terms(
        fleet=name or f"vidray-{uuid4().hex[:8]}",  # of this driver alone
        checkpoint=str(checkpoint.resolve()),
        profile=profile,
        limits=limits or profile.decode_limits,
        reader=reader,
    )
    planner = Planner(family=load_family(checkpoint), options=options or PlanOptions())
    with connected(profile, address=address, exports_metrics=exports_metrics), ExitStack() as stack:
        running = terms_of(name, patience_s=profile.start_s) if name else None
        if running is None:
            owner = host_name(terms.fleet)
            pools = _start_pools(terms, stack)
        else:
            running.require(terms)
            terms, owner = running, f"{host_name(terms.fleet)}-{uuid4().hex[:8]}"
            pools = terms.names.find()
        hosts = _hosts(owner, terms, planner)
        for host in hosts:
            stack.callback(_kill, host)
        yield Fleet(pools, hosts, terms.profile)


def _start_pools(terms: Terms, stack: ExitStack) -> Pools:
    """All actors but stream hosts; they end with the stack."""
    profile, folder, names = terms.profile, terms.checkpoint, terms.names
    placement = Placement.of(profile)
    placement.require_room(node_resources())
    # In this order: whoever needs most of one node has the first choice.
    groups = [_group(bundles, stack) for bundles in placement.replicas]
    decoders = _decoders(names.decoders, profile, folder, groups)
    encoders = _encoders(names.encoders, profile, folder, placement, groups)
    readers = _readers(names.readers, profile, terms.limits, terms.reader)
    for actor in (*readers, *encoders, *decoders):
        stack.callback(_kill, actor)
    return Pools(readers=readers, encoders=encoders, decoders=decoders)


def _hosts(owner: str, terms: Terms, planner: Planner) -> tuple[Handle, ...]:
    """On different nodes, if they can: what they do is calls over the network."""
    actor: Any = StreamHostActor
    count = terms.profile.stream_hosts
    owners = [owner, *(f"{owner}-{number}" for number in range(1, count))]
    return tuple(
        actor.options(
            name=each,
            namespace=NAMESPACE,
            num_cpus=0,
            max_concurrency=MAX_CALLS,
            scheduling_strategy="SPREAD" if count > 1 else "DEFAULT",
        ).remote(each, terms, planner, number)
        for number, each in enumerate(owners)
    )


def _kill(actor: Any) -> None:
    ray.kill(actor)


def _readers(
    names: Sequence[str], profile: Profile, limits: DecodeLimits, reader: Reader
) -> tuple[Handle, ...]:
    pool = profile.readers
    limits = replace(limits, ahead_bytes=pool.ahead_bytes)
    actor: Any = FrameReaderActor
    return tuple(
        actor.options(name=name, namespace=NAMESPACE, num_cpus=pool.num_cpus).remote(
            limits, reader, pool.videos_per_actor, profile.lease_s
        )
        for name in names
    )


def _group(bundles: Sequence[Bundle], stack: ExitStack) -> PlacementGroup:
    """Room for one replica, and for the encoders on its cards; it may take a while to be free."""
    group: PlacementGroup = placement_group([bundle.resources for bundle in bundles])
    stack.callback(remove_placement_group, group)
    group.wait(timeout_seconds=ROOM_S)
    return group


def _encoders(
    names: Sequence[str],
    profile: Profile,
    folder: str,
    placement: Placement,
    groups: Sequence[PlacementGroup],
) -> tuple[Handle, ...]:
    """Those on a rank's card are placed with it, the others anywhere."""
    pool = profile.encoders
    places = {
        number: PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        for group, bundles in zip(groups, placement.replicas, strict=True)
        for index, bundle in enumerate(bundles)
        for number in bundle.encoders
    }
    actor: Any = VisionEncoderActor
    return tuple(
        actor.options(
            name=name,
            namespace=NAMESPACE,
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            scheduling_strategy=places.get(number, "DEFAULT"),
        ).remote(folder, profile)
        for number, name in enumerate(names)
    )


def _decoders(
    names: Sequence[str], profile: Profile, folder: str, groups: Sequence[PlacementGroup]
) -> tuple[Handle, ...]:
    """The replicas' leaders, each in a placement group with room for its followers."""
    pool = profile.decoders
    actor = DECODERS[pool.engine]
    # vLLM's ranks are actors of its own, a bundle each: the leader of several needs no GPU.
    is_apart = pool.engine == "vllm" and pool.tensor_parallel > 1
    return tuple(
        actor.options(
            name=name,
            namespace=NAMESPACE,
            num_cpus=pool.num_cpus,
            num_gpus=0 if is_apart else pool.num_gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
            ),
        ).remote(folder, profile)
        for name, group in zip(names, groups, strict=True)
    )
