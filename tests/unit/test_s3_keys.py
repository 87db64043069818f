"""Keys to S3: looked for in AWS's order, named without being shown, renewed before they end."""

import json
import pickle
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.errors import ConfigError, StoreDenied, Transient
from pipeline.store.s3_keys import NO_KEYS, S3Keys

VARIABLES = {"AWS_ACCESS_KEY_ID": "variable", "AWS_SECRET_ACCESS_KEY": "hidden"}
ALONE = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}  # nothing but what is given


class TokenServer:
    """STS and a container's and an instance's metadata on loopback: keys that are over at once."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.status = 200
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/security-credentials/"):
                    return self._say("a-role")
                server.asked.append({})
                keys = {"AccessKeyId": server.name, "SecretAccessKey": "hidden", "Token": "hidden"}
                return self._say(json.dumps(keys | {"Expiration": server.end}))

            def do_PUT(self) -> None:
                self._say("a-token")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                query = parse_qs(urlsplit(self.path).query) | parse_qs(body)
                server.asked.append(query)
                (action,) = query["Action"]
                self._say(
                    f"<R><{action}Result><Credentials><AccessKeyId>{server.name}</AccessKeyId>"
                    "<SecretAccessKey>hidden</SecretAccessKey><SessionToken>hidden</SessionToken>"
                    f"<Expiration>{server.end}</Expiration></Credentials></{action}Result></R>"
                )

            def _say(self, text: str) -> None:
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def name(self) -> str:
        return f"key-{len(self.asked)}"

    @property
    def end(self) -> str:
        return f"{datetime.now(UTC) + timedelta(seconds=5):%Y-%m-%dT%H:%M:%SZ}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=10)


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    server = TokenServer()
    yield server
    server.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With two profiles of keys, one whose role is assumed, and one of single sign-on."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = file\naws_secret_access_key = hidden%1\n"
        "[other]\naws_access_key_id = other\naws_secret_access_key = hidden\n"
        "aws_session_token = t\n[half]\naws_access_key_id = half\n"
    )
    (tmp_path / ".aws/config").write_text(
        "[default]\nregion = eu-west-3\n[profile worker]\nrole_arn = arn:aws:iam::1:role/worker\n"
        "source_profile = other\nregion = eu-central-1\n[profile desk]\nsso_session = company\n"
    )
    return tmp_path


def test_the_first_source_there_is_gives_the_keys_and_its_name(
    home: Path, tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file = home / "token"
    token_file.write_text("jwt\n")
    web = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/pod",
    }
    sts = {"AWS_ENDPOINT_URL_STS": tokens.url}
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{tokens.url}/task")
    container = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{tokens.url}/task"}
    files = {"HOME": str(home)}
    for environment, source, key in [
        (VARIABLES | web | sts | files, "the keys of AWS_ACCESS_KEY_ID", "variable"),
        (
            VARIABLES | {"AWS_SESSION_TOKEN": "t"},
            "AWS_ACCESS_KEY_ID and AWS_SESSION_TOKEN",
            "variable",
        ),
        (web | sts | files, f"the keys of arn:aws:iam::1:role/pod by {token_file}", "key-1"),
        (files | container, "the keys of profile 'default'", "file"),
        (files | {"AWS_PROFILE": "other"}, "the keys of profile 'other'", "other"),
        (
            files | sts | {"AWS_PROFILE": "worker"},
            "of arn:aws:iam::1:role/worker by profile",
            "key-2",
        ),
        (container, "the keys of the container's role", "key-3"),
    ]:
        keys = S3Keys(ALONE | environment)
        found = keys.retrieve()
        assert found is not None
        assert (source in keys.source, found.access_key) == (True, key), keys.source
        assert "hidden" not in f"{keys!r} {keys.source}"
    assert tokens.asked[0]["WebIdentityToken"] == ["jwt"]
    assert tokens.asked[1]["RoleArn"] == ["arn:aws:iam::1:role/worker"]


def test_an_instances_role_is_asked_for_last(
    tokens: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"HOME": "/nonexistent", "AWS_EC2_METADATA_SERVICE_ENDPOINT": tokens.url}
    keys = S3Keys(here)
    assert keys.retrieve() is not None
    assert keys.source == "the keys of the instance's role"
    tokens.status = 404
    assert S3Keys(here).retrieve() is None
    nobody = S3Keys(ALONE)
    assert nobody.retrieve() is None
    assert nobody.source == NO_KEYS


def test_keys_that_end_are_renewed_from_where_they_came(tokens: TokenServer) -> None:
    keys = S3Keys({"HOME": "/nonexistent", "AWS_EC2_METADATA_SERVICE_ENDPOINT": tokens.url})
    seen = [keys.retrieve() for _ in range(3)]
    assert len({each.access_key for each in seen if each}) == 3
    tokens.status = 500
    with pytest.raises((Transient, StoreDenied), match="the instance's role could not be had"):
        keys.retrieve()  # and not: go on without keys
    tokens.status = 200
    assert keys.retrieve() is not None


def test_a_file_that_is_written_again_is_read_again(home: Path) -> None:
    keys = S3Keys(ALONE | {"HOME": str(home), "AWS_PROFILE": "other"})
    first = keys.retrieve()
    assert keys.retrieve() is first
    file = home / ".aws/credentials"
    file.write_text(file.read_text().replace("= other", "= renewed"))
    again = keys.retrieve()
    assert again is not None
    assert (again.access_key, again.session_token) == ("renewed", "t")


def test_a_refused_role_says_so_without_its_token(home: Path, tokens: TokenServer) -> None:
    (home / "token").write_text("hidden")
    web = {"AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"), "AWS_ROLE_ARN": "arn:x"}
    tokens.status = 403
    with pytest.raises(StoreDenied, match="answered 403") as error:
        S3Keys(ALONE | web | {"AWS_ENDPOINT_URL_STS": tokens.url}).retrieve()
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "k"}, "need each other"),
        ({"AWS_PROFILE": "nobody"}, "AWS_PROFILE 'nobody' is neither in"),
        ({"AWS_PROFILE": "half"}, "profile 'half' needs aws_access_key_id and"),
        ({"AWS_PROFILE": "desk"}, "profile 'desk' has its keys by sso_session"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/file"}, "names no readable file"),
    ],
)
def test_what_cannot_give_keys_is_named(
    home: Path, environment: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        S3Keys(ALONE | {"HOME": str(home)} | environment).retrieve()


def test_another_process_finds_its_own_keys() -> None:
    keys = S3Keys(ALONE | VARIABLES | {"PATH": "/bin"})
    keys.retrieve()
    there = pickle.loads(pickle.dumps(keys))  # noqa: S301 - our own bytes
    assert there.retrieve() == keys.retrieve()
