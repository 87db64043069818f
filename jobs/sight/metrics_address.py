"""Where --metrics listens."""

LOOPBACK = "127.0.0.1"
RULE = "must be PORT or HOST:PORT with a port up to 65535"


def host_and_port(address: str) -> tuple[str, int]:
    """Of [HOST:]PORT, loopback where no host is named. ValueError has the rule and the value."""
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ValueError(f"{RULE}, got {address}")
    return host.strip("[]") or LOOPBACK, int(port)
