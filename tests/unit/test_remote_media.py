"""Videos of the web: nothing is asked but what the operator listed and what is public."""

import asyncio
import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobs.serve import remote_media
from jobs.serve.refusals import Refusal
from jobs.serve.remote_media import RemoteMedia, is_public
from jobs.serve.uploads import Incoming

HOST = "media.example"
CONTENT = b"a video" * 1_000
PUBLIC = "93.184.215.14"

HERE_AND_NEAR = (
    "127.0.0.1", "127.8.9.10", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "0.0.0.0",  # noqa: S104
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
)  # fmt: skip


@pytest.mark.parametrize("address", HERE_AND_NEAR)
def test_no_address_of_this_machine_or_its_network_is_public(address: str):
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1111"])
def test_those_of_the_web_are(address: str):
    assert is_public(ip_address(address))


URLS = (
    "http://media.example/a.mp4", "https://other.example/a.mp4", "https://sub.media.example/a",
    "https://127.0.0.1/a", "https://2130706433/a", "https://0x7f.1/a", "https://[::1]/a",
    "https://media.example@127.0.0.1/a", "https://127.0.0.1#@media.example/", "file:///etc/passwd",
    "https://user:secret@media.example/a", "https://media.example:22/a", "ftp://media.example/a",
    "https://media.example\\@127.0.0.1/a", "https://media.example\r\nhost: a/", "s3://bucket/a",
    "gopher://media.example/", "//media.example/a", "", "https://", "https://media.example:x/",
    "https://ｍedia.example/a", "https://media.example/" + "a" * 3_000,
)  # fmt: skip


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_what_is_not_https_on_a_listed_host_is_not_even_looked_up(url: str, tmp_path: Path):
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    assert code_of(tmp_path, url, resolve=resolve) == "remote_refused"


@pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:10.0.0.1"], []])
def test_a_listed_host_that_points_inside_is_not_asked(
    found: list[str], tmp_path: Path, site: "Site"
):
    assert code_of(tmp_path, f"https://{HOST}/a", resolve=lambda *_: found) == "remote_refused"
    assert site.num_hits == 0


def test_what_was_checked_is_what_is_asked_however_the_name_turns(tmp_path: Path, site: "Site"):
    """A name that points elsewhere a moment later: it is resolved once."""
    answers = iter([["127.0.0.1"]])
    assert fetched(tmp_path, site, "/a", resolve=lambda *_: next(answers)) == CONTENT
    assert next(answers, None) is None


def test_redirects_are_checked_each(tmp_path: Path, site: "Site"):
    assert fetched(tmp_path, site, "/to?a") == CONTENT
    for target in ("https://127.0.0.1/a", "http://media.example/a", "file:///etc/passwd"):
        assert code_of(tmp_path, f"https://{HOST}/to?{target}", site=site) == "remote_refused"
    assert code_of(tmp_path, f"https://{HOST}/to?to?to?to?a", site=site) == "remote_failed"


def test_size_and_status_are_bounded_while_it_comes(tmp_path: Path, site: "Site"):
    for path in ("/a", "/unsized"):
        assert code_of(tmp_path, f"https://{HOST}{path}", site=site, max_bytes=100) == "too_large"
    assert code_of(tmp_path, f"https://{HOST}/none", site=site) == "remote_failed"
    assert code_of(tmp_path, f"https://{HOST}/cut", site=site) == "remote_failed"


def test_proxies_of_the_environment_are_not_used(
    tmp_path: Path, site: "Site", monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert fetched(tmp_path, site, "/a") == CONTENT


class Site:
    """A host of the web, on loopback; counts who asked."""

    def __init__(self, port: int, certificate: Path) -> None:
        self.port = port
        self.num_hits = 0
        self.tls = ssl.create_default_context(cafile=str(certificate))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "site.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def site(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with running(certificate) as site:
        # The port is the only thing that is not as on the web.
        connect = remote_media.socket.create_connection
        monkeypatch.setattr(
            remote_media.socket,
            "create_connection",
            lambda place, timeout: connect((place[0], site.port), timeout=timeout),
        )
        yield site


@contextmanager
def running(certificate: Path) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.num_hits += 1
            if self.path.startswith("/to?"):
                self.send_response(302)
                target = self.path.removeprefix("/to?")
                self.send_header("location", target if ":" in target else f"/{target}")
                self.end_headers()
                return
            self.send_response(404 if self.path == "/none" else 200)
            if self.path != "/unsized":
                longer = 5 if self.path == "/cut" else 0
                self.send_header("content-length", str(len(CONTENT) + longer))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        site = Site(server.server_port, certificate)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def fetched(folder: Path, site: Site, path: str, **settings: Any) -> bytes:
    return take(folder, f"https://{HOST}{path}", site, **settings)


def code_of(folder: Path, url: str, site: Site | None = None, **settings: Any) -> str:
    with pytest.raises(Refusal) as refused:
        take(folder, url, site, **settings)
    assert not refused.value.message.count("127.0.0.1")  # nothing of what was found inside
    return refused.value.code


def take(folder: Path, url: str, site: Site | None, **settings: Any) -> bytes:
    """What was fetched. A site of these tests may be asked although it is on loopback."""
    usual: dict[str, Any] = {"max_bytes": 1 << 20}
    if site is not None and "resolve" not in settings:
        settings["resolve"] = lambda *_: ["127.0.0.1"]
    if site is not None:
        usual |= {"tls": site.tls, "may_ask": lambda _: True}
    remote = RemoteMedia(hosts=frozenset({HOST}), **usual | settings)
    path = folder / f"in-{len(list(folder.iterdir()))}"
    file = Incoming(path, max_bytes=remote.max_bytes)
    try:
        asyncio.run(remote.fetch(url, file))
        asyncio.run(file.close())
        return file.path.read_bytes()
    finally:
        file.discard()
