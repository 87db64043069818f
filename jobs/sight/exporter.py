"""--metrics: a job's numbers for Prometheus and `vidray top`, while it works.

Not covered: whoever reaches the address reads them, so it is loopback unless a host is named.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server
from rich.console import Console

from jobs.sight.meters import Meters
from jobs.sight.metrics_address import host_and_port
from pipeline.errors import ConfigError


@contextmanager
def exported(meters: Meters, address: str | None, console: Console) -> Iterator[None]:
    """At [HOST:]PORT while entered; nowhere without one. ConfigError if nobody can listen there."""
    if address is None:
        yield
        return
    try:
        host, port = host_and_port(address)
    except ValueError as error:
        raise ConfigError(f"--metrics {error}") from error
    try:
        server, thread = start_http_server(port, addr=host, registry=meters.registry)
    except OSError as error:
        raise ConfigError(f"--metrics {address}: {error.strerror or error}") from error
    name = f"[{host}]" if ":" in host else host
    console.print(f"metrics at http://{name}:{server.server_port}/metrics", soft_wrap=True)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
