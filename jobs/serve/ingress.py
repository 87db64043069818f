"""The endpoint under Ray Serve: replicas that hold nothing and carry requests to the desk.

`serve deploy deploy/serve.yaml` starts it. A replica that dies takes the
connections that went through it; the same request, or `?after=`, goes on at any other.
"""

from typing import Any

import ray
from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs.serve.carrier import Carrier
from jobs.serve.desk_actor import DeskSettings, find_desk


class Ingress:
    """One replica."""

    def __init__(self, settings: DeskSettings) -> None:
        self._settings = settings
        self.carrier = Carrier(find_desk(settings))
        ray.get(self.carrier.desk.ready.remote())

    def check_health(self) -> None:
        """Keep the desk; another one where it has ended. A desk that is away is not our illness."""
        self.carrier.desk = find_desk(self._settings)
        self.carrier.desk.ready.remote()


def replica_app() -> ASGIApp:
    """This replica as an app; Serve calls it in each."""

    async def relay(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            replica: Any = serve.get_replica_context().servable_object
            await replica.carrier.carry(scope, receive, send)

    return relay


def deployment() -> Any:
    """Of the application's only kind; whoever holds state is a plain actor."""
    return serve.deployment(name="Ingress")(serve.ingress(replica_app)(Ingress))


def app(settings: DeskSettings) -> serve.Application:
    """What Serve deploys. settings: the args of its config."""
    application: serve.Application = deployment().bind(settings)
    return application
