"""Videos of the web, where the operator lists their hosts: fetched to the disk, within limits.

Covered: only https, only listed hosts, only public addresses, checked after the name was resolved
and used as they were checked, so that a name cannot point elsewhere a moment later; every redirect
likewise; no proxy, no cookie, no credentials; size and time are bounded while it comes.
Not covered: what a listed host itself serves is as trusted as any upload.
"""

import asyncio
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urljoin, urlsplit

from jobs.serve.refusals import remote_failed, remote_refused
from jobs.serve.uploads import Incoming, too_large

MAX_REDIRECTS = 3
MAX_URL_CHARACTERS = 2_048
BLOCK_BYTES = 1 << 18
STALL_S = 10.0
_REDIRECTS = (301, 302, 303, 307, 308)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMedia:
    """hosts: those that may be asked. may_ask: whether an address is one of the public's."""

    hosts: frozenset[str] = frozenset()
    max_bytes: int
    deadline_s: float = 120.0
    resolve: Resolve = field(default_factory=lambda: resolved)
    may_ask: Callable[[Address], bool] = field(default_factory=lambda: is_public)
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    async def fetch(self, url: str, file: Incoming) -> None:
        """Write what is there into the file. Refusal where it may not or cannot be had."""
        try:
            async with asyncio.timeout(self.deadline_s):
                await self._follow(url, file)
        except TimeoutError:
            raise remote_failed("it comes too slowly") from None

    async def _follow(self, url: str, file: Incoming) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            place = self._checked(url)
            address = await asyncio.to_thread(self._public_address, place)
            connection = _Pinned(place.hostname or "", place.port or 443, address, self.tls)
            with closing(connection):
                response = await asyncio.to_thread(_asked, connection, place)
                if response.status not in _REDIRECTS:
                    await self._take(response, file)
                    return
                url = urljoin(url, response.headers.get("location", ""))
        raise remote_failed(f"more than {MAX_REDIRECTS} redirects")

    async def _take(self, response: http.client.HTTPResponse, file: Incoming) -> None:
        if response.status != 200:
            raise remote_failed(f"its host says {response.status}")
        if response.length is not None and response.length > self.max_bytes:
            raise too_large(self.max_bytes)
        while block := await asyncio.to_thread(_block, response):
            await file.write(block)
        if response.length:
            raise remote_failed("it ended before its end")

    def _checked(self, url: str) -> SplitResult:
        """Refusal unless it is https on a listed host, and nothing else is in it."""
        try:
            place = urlsplit(url)
            port = place.port
        except ValueError:
            raise remote_refused("this is no url") from None
        host = (place.hostname or "").rstrip(".")
        is_plain = not place.username and not place.password and url.isascii() and url.isprintable()
        if len(url) > MAX_URL_CHARACTERS or not is_plain or "\\" in url:
            raise remote_refused("this is no url that is taken here")
        if place.scheme != "https" or host not in self.hosts or port not in (None, 443):
            raise remote_refused(
                "only https: urls of listed hosts, uploads and data: urls are taken"
            )
        return place

    def _public_address(self, place: SplitResult) -> str:
        """The first address; Refusal if any is not the public's."""
        try:
            found = self.resolve(place.hostname or "", place.port or 443)
        except OSError:
            raise remote_failed("its host is not known") from None
        if not found or not all(self.may_ask(ipaddress.ip_address(each)) for each in found):
            raise remote_refused("its host is not a public one")
        return found[0]


class _Pinned(http.client.HTTPSConnection):
    """A connection to this address and no other, whatever the name says by now."""

    def __init__(self, host: str, port: int, address: str, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=STALL_S, context=tls)
        self._address, self._tls = address, tls

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), timeout=STALL_S)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def resolved(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]).partition("%")[0] for each in found]


def is_public(address: Address) -> bool:
    """Not of this machine, nor of its network, however that is written."""
    return all(
        each.is_global and not each.is_multicast and not each.is_reserved
        for each in _meant(address)
    )


def _meant(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 one that an IPv6 one carries; those by NAT64 are reserved."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        carried = (address.ipv4_mapped, address.sixtofour, *(address.teredo or ()))
        yield from (each for each in carried if each is not None)


def _asked(connection: _Pinned, place: SplitResult) -> http.client.HTTPResponse:
    path = (place.path or "/") + (f"?{place.query}" if place.query else "")
    try:
        connection.request("GET", path, headers={"user-agent": "vidray", "accept": "video/*"})
        return connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise remote_failed("its host does not answer") from None


def _block(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException):
        raise remote_failed("it ended before its end") from None
