"""The endpoint as stock clients and pages use it: one real server, one tiny model."""

import base64
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from tests.endpoint import MODEL, bare_endpoint, tiny_endpoint
from tests.held_words import HeldWords
from tests.media_factory import CHUNKED, Clip, make
from tests.tiny_folder import CHUNKED_PIXELS, write_folder

TIMEOUT_S = 60.0
FEW_STEPS = 20  # a few words of many


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("model"), max_pixels=CHUNKED_PIXELS)


@pytest.fixture(scope="module")
def address(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tiny_endpoint(model_folder, tmp_path_factory.mktemp("data")) as address:
        yield address


@pytest.fixture
def web(address: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=address, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{address}/v1", api_key="none", timeout=TIMEOUT_S, max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Each time another clip, so that no test finds what another has left."""
    folder = tmp_path_factory.mktemp("clips")
    return (make(folder, Clip(num_frames=36 + n, **CHUNKED), f"clip{n}") for n in range(60))


@pytest.fixture
def clip(clips: Iterator[Path]) -> Path:
    return next(clips)


def data_url(path: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"


def asked(url: Any, text: str = "Why?") -> list[Any]:
    """A conversation of one question."""
    parts = [{"type": "video_url", "video_url": url}, {"type": "text", "text": text}]
    return [{"role": "user", "content": parts}]


def events_of(response: httpx2.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Server-sent events as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}


def opened(web: httpx2.Client, clip: Path, **plan: object) -> dict[str, Any]:
    with clip.open("rb") as file:
        sent = web.post("/v1/files", files={"file": file}, data={"purpose": "user_data"})
    body = {"source": {"file_id": sent.json()["id"]}, "plan": plan}
    response = web.post("/v1/streams", json=body)
    assert response.status_code == 201, response.text
    return response.json()


def test_a_stock_client_gets_the_same_words_at_once_and_streamed_however_the_video_is_sent(
    client: openai.OpenAI, clip: Path
):
    uploaded = client.files.create(file=clip, purpose="user_data")
    ways = [
        asked({"url": data_url(clip)}),
        asked(data_url(clip)),
        asked(uploaded.id),
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Why?"},
                    {"type": "file", "file": {"file_id": uploaded.id}},
                ],
            }
        ],
        [
            {
                "role": "user",
                "content": [
                    {"type": "file", "file": {"file_data": data_url(clip), "filename": "a"}},
                    {"type": "text", "text": "Why?"},
                ],
            }
        ],
    ]
    whole = [client.chat.completions.create(model=MODEL, messages=way) for way in ways]
    texts = {each.choices[0].message.content for each in whole}
    assert len(texts) == 1
    streamed = client.chat.completions.create(
        model=MODEL, messages=ways[0], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(streamed)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert {text} == texts
    assert chunks[-1].usage == whole[-1].usage
    assert [each.choices[0].finish_reason for each in whole] == ["length"] * len(whole)


def test_a_chat_about_the_same_bytes_watches_nothing_again(client: openai.OpenAI, clip: Path):
    first, again = (
        client.chat.completions.create(model=MODEL, messages=asked(data_url(clip), text))
        for text in ("Why?", "How?")
    )
    assert first.vidray["stream"] == again.vidray["stream"]
    assert first.vidray["frames_decoded"] > 0
    assert again.vidray["frames_decoded"] == 0
    details = again.usage.prompt_tokens_details
    assert details.cached_tokens == details.video_tokens > 0
    assert first.usage.prompt_tokens_details.cached_tokens == 0


def test_earlier_turns_are_the_conversation_as_a_follow_up_has_it(
    client: openai.OpenAI, web: httpx2.Client, clip: Path
):
    stream = opened(web, clip)
    first = web.post(f"/v1/streams/{stream['id']}/ask", json={"question": "Why?"}).json()
    followed = web.post(
        f"/v1/streams/{stream['id']}/ask", json={"question": "And?", "after": first["id"]}
    ).json()
    messages = [
        *asked(data_url(clip)),
        {"role": "assistant", "content": first["text"]},
        {"role": "user", "content": "And?"},
    ]
    chat = client.chat.completions.create(model=MODEL, messages=messages)
    fresh = client.chat.completions.create(model=MODEL, messages=asked(data_url(clip), "And?"))
    assert chat.usage.prompt_tokens > fresh.usage.prompt_tokens
    assert followed["usage"]["frames_decoded"] == 0
    assert chat.choices[0].message.content


def test_an_answer_keeps_to_choices_and_to_a_schema(client: openai.OpenAI, clip: Path):
    chosen = client.chat.completions.create(
        model=MODEL, messages=asked(data_url(clip)), extra_body={"choices": ["red", "blue"]}
    )
    assert chosen.choices[0].message.content in ("red", "blue")
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    formed = client.chat.completions.create(
        model=MODEL,
        messages=asked(data_url(clip)),
        max_tokens=64,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "n",
                "schema": {**schema, "additionalProperties": False},
                "strict": True,
            },
        },
    )
    assert json.loads(formed.choices[0].message.content)["n"] in (1, 2)


def test_sampling_is_said_in_either_way_and_is_one(client: openai.OpenAI, clip: Path):
    one = client.chat.completions.create(
        model=MODEL, messages=asked({"url": data_url(clip), "fps": 6, "max_frames": 8})
    )
    other = client.chat.completions.create(
        model=MODEL,
        messages=asked(data_url(clip)),
        extra_body={"media_io_kwargs": {"video": {"fps": 6, "num_frames": 8}}},
    )
    assert one.vidray["stream"] == other.vidray["stream"]
    assert one.vidray["frames_decoded"] == 8


CHAT_REFUSALS = {
    "fps above the ceiling": ({"url": "U", "fps": 1000}, {}, "above_ceiling", "fps"),
    "frames above it": ({"url": "U", "max_frames": 5000}, {}, "above_ceiling", "max_frames"),
    "a key that is none": ({"url": "U", "speed": 2}, {}, "unknown_key", "speed"),
    "another one": ("U", {"speed": 2}, "unknown_key", "speed"),
    "tokens above the ceiling": ("U", {"max_tokens": 9999}, "above_ceiling", "max_tokens"),
    "tools": ("U", {"tools": [{"type": "function"}]}, "unsupported", "tools"),
    "several answers": ("U", {"n": 2}, "unsupported", "n"),
    "the web": ("http://127.0.0.1:9/a.mp4", {}, "remote_refused", "url"),
    "a file of this machine": ("file:///etc/passwd", {}, "remote_refused", "url"),
    "no base64": ("data:video/mp4;base64,!!!", {}, "invalid", "url"),
    "no video": ("data:video/mp4;base64,aGVsbG8gd29ybGQ=", {}, "not_a_video", None),
    "NUL in the question": ("U", {"text": "a\0b"}, "bad_prompt", None),
    "two ways that differ": (
        {"url": "U", "fps": 2},
        {"media_io_kwargs": {"video": {"fps": 3}}},
        "invalid",
        "media_io_kwargs.video.fps",
    ),
}


@pytest.mark.parametrize("name", CHAT_REFUSALS)
def test_what_cannot_be_is_refused_by_its_name(client: openai.OpenAI, clip: Path, name: str):
    shown, extra, code, param = CHAT_REFUSALS[name]
    url = shown if isinstance(shown, str) else shown["url"]
    url = url.replace("U", data_url(clip)) if url == "U" else url
    shown = url if isinstance(shown, str) else {**shown, "url": url}
    text = extra.pop("text", "Why?") if "text" in extra else "Why?"
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model=MODEL, messages=asked(shown, text), extra_body={**extra}
        )
    error = refused.value
    assert (error.status_code, error.code) == (422, code)
    assert error.response.headers["x-should-retry"] == "false"
    if param is not None:
        assert param in error.param


def test_bodies_that_are_none_are_refused_in_their_shape(web: httpx2.Client):
    bodies = {
        b"{": 400,
        b"[" * 100_000: 400,
        b"[]": 422,
        b'{"model": NaN}': 400,
        b'{"model": "tiny", "max_tokens": 4, "max_tokens": 5}': 400,
        b'{"model": "tiny", "max_tokens": ' + b"9" * 10_000 + b"}": 400,
        b'{"model": "tiny", "messages": [{"role": "user", "role": "user", "content": ""}]}': 400,
        b"{}": 422,
        b'{"model": "tiny", "messages": []}': 422,
        b'{"model": "tiny", "messages": [{"role": {}, "content": ""}]}': 422,
        b'{"model": "{0}", "messages": [{"role": "{0}{", "content": ""}]}': 422,
        b'{"model": "other", "messages": [{"role": "user", "content": "a"}]}': 404,
        b'{"model": "tiny", "messages": [{"role": "user", "content": "a"}]}': 422,
    }
    for body, status in bodies.items():
        response = web.post("/v1/chat/completions", content=body)
        assert response.status_code == status, (body[:80], response.text)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_a_refusal_names_what_the_client_wrote_in_plain_words(web: httpx2.Client):
    def told(**changed: Any) -> tuple[str | None, str]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}], **changed}
        error = web.post("/v1/chat/completions", json=body).json()["error"]
        return error["param"], error["message"]

    def of_user(content: object) -> tuple[str | None, str]:
        return told(messages=[{"role": "user", "content": content}])

    assert of_user(None) == ("content", "content must be a text, got null")
    param, message = of_user([{"type": "audio"}])
    assert param == "content"
    assert message.startswith("content must have a 'type' of 'text', 'video_url', 'image_url',")
    assert of_user([{}]) == ("content", "content must have a 'type', got {}")
    assert of_user([5]) == ("content", "content must hold named values, got 5")
    schema = {"type": "json_schema", "json_schema": {"schema": 5}}
    assert told(response_format=schema) == ("schema", "schema must hold named values, got 5")
    assert told(messages=[]) == ("messages", "messages must be at least 1 long, got []")
    param, message = told(stop=list("abcde"))
    assert param == "stop"
    assert message.startswith("stop must be at most 4 long, got ")
    assert told(stop=[""]) == ("stop", 'stop must be at least 1 long, got ""')
    for key in ("str", "a[0]"):
        assert told(**{key: 1}) == (key, f"there is no {key}")
    error = web.get("/v1/streams/stream-0/frames/first").json()["error"]
    assert (error["param"], error["message"]) == (
        "index",
        "index must be a whole number, got first",
    )


def test_a_picture_is_looked_at(client: openai.OpenAI):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    reply = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )
    assert reply.choices[0].message.content
    assert reply.usage.prompt_tokens_details.video_tokens > 0


def test_files_are_kept_told_and_deleted(client: openai.OpenAI, web: httpx2.Client, clip: Path):
    kept = client.files.create(file=clip, purpose="user_data")
    assert (kept.bytes, kept.filename, kept.status) == (
        clip.stat().st_size,
        clip.name,
        "processed",
    )
    assert kept.media["codec"] == "h264"
    assert client.files.retrieve(kept.id) == kept
    assert kept.id in [each.id for each in client.files.list()]
    assert client.files.content(kept.id).content == clip.read_bytes()
    part = web.get(f"/v1/files/{kept.id}/content", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, clip.read_bytes()[4:8])
    assert client.files.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(kept.id)


def test_what_is_no_video_is_not_kept(client: openai.OpenAI, web: httpx2.Client, tmp_path: Path):
    (tmp_path / "a.mp4").write_text("this is no video")
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.files.create(file=tmp_path / "a.mp4", purpose="user_data")
    assert refused.value.code == "not_a_video"
    for body, kind in ((b"nothing", "multipart/form-data; boundary=x"), (b"", "text/plain")):
        response = web.post("/v1/files", content=body, headers={"content-type": kind})
        assert response.status_code in (400, 422)


def test_a_file_is_kept_for_as_long_as_its_client_says(
    client: openai.OpenAI, web: httpx2.Client, clip: Path
):
    after: Any = {"anchor": "created_at", "seconds": 3_600}
    kept = client.files.create(file=clip, purpose="user_data", expires_after=after)
    assert kept.expires_at == kept.created_at + 3_600
    client.files.delete(kept.id)
    for seconds in ("0", "-1", "1.5", "9" * 12, "soon", ""):
        form = {"purpose": "user_data", "expires_after[seconds]": seconds}
        refused = web.post("/v1/files", files={"file": clip.read_bytes()}, data=form)
        assert refused.status_code == 422
        assert refused.json()["error"]["param"] == "expires_after[seconds]"
        assert "1 to 86400 seconds" in refused.json()["error"]["message"]


def test_an_upload_is_bounded_before_and_while_it_comes(model_folder: Path, tmp_path: Path):
    with (
        tiny_endpoint(model_folder, tmp_path, max_upload_bytes=100_000) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        head = {"content-type": "multipart/form-data; boundary=x"}
        with closing(HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT_S)) as raw:
            raw.putrequest("POST", "/v1/files")
            for name, value in (head | {"content-length": "99999999"}).items():
                raw.putheader(name, value)
            raw.endheaders()  # and not one byte of the body
            assert raw.getresponse().status == 413

        def body() -> Iterator[bytes]:
            yield b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(64):
                yield bytes(10_000)

        assert web.post("/v1/files", headers=head, content=body()).status_code == 413
        assert list((tmp_path / "incoming").iterdir()) == []


def test_a_stream_is_planned_first_and_tells_all_that_happens(web: httpx2.Client, clip: Path):
    stream = opened(web, clip, fps=6.0)
    num_frames = stream["plan"]["num_frames"]
    assert len(stream["plan"]["times_s"]) == num_frames
    assert stream["counters"] == {"decoded": 0, "encoded": 0, "prefilled": 0, "watched": 0}
    again = web.post(
        "/v1/streams", json={"source": {"file_id": stream["file_id"]}, "plan": {"fps": 6.0}}
    )
    assert (again.status_code, again.json()["id"]) == (200, stream["id"])
    heard = []
    with web.stream(
        "POST", f"/v1/streams/{stream['id']}/ask", json={"question": "Why?", "stream": True}
    ) as response:
        heard = list(events_of(response))
    names = [name for _, name, _ in heard]
    assert names[0] == "asked"
    assert names[-1] == "answered"
    for stage in ("decoded", "encoded", "prefilled"):
        told = [data for _, name, data in heard if name == stage]
        assert len(told) > 1
        assert [frame for data in told for frame in data["frames"]] == list(range(num_frames))
        assert told[-1]["counters"][stage] == num_frames
        assert told[0]["times_s"] == stream["plan"]["times_s"][: len(told[0]["frames"])]
    answer = heard[-1][2]
    words = "".join(data["text"] for _, name, data in heard if name == "words")
    assert words == answer["text"]
    follow = web.post(
        f"/v1/streams/{stream['id']}/ask", json={"question": "And?", "after": answer["id"]}
    ).json()
    assert follow["usage"]["cached_tokens"] == stream["plan"]["num_tokens"]
    after = web.get(f"/v1/streams/{stream['id']}").json()
    assert after["counters"] == {**dict.fromkeys(EVENT_NAMES, num_frames), "watched": 1}
    assert after["forecast"]["first_word_s"] > 0
    assert [each["id"] for each in after["answers"]] == [answer["id"], follow["id"]]


EVENT_NAMES = ("decoded", "encoded", "prefilled")


def test_whoever_comes_back_gets_the_rest_and_the_end(web: httpx2.Client, clip: Path):
    stream = opened(web, clip)
    url = f"/v1/streams/{stream['id']}"
    answer = web.post(f"{url}/ask", json={"question": "Why?"}).json()
    own = {"answer": answer["id"]}
    with web.stream("GET", f"{url}/events", params=own) as response:
        everything = list(events_of(response))
    middle = everything[len(everything) // 2][0]
    with web.stream(
        "GET", f"{url}/events", params=own, headers={"last-event-id": str(middle)}
    ) as response:
        rest = list(events_of(response))
    assert rest == [event for event in everything if event[0] > middle]
    assert web.delete(url).json()["deleted"]
    assert web.get(url).status_code == 404


def test_closing_a_stream_ends_its_events(web: httpx2.Client, clip: Path):
    stream = opened(web, clip)
    with web.stream("GET", f"/v1/streams/{stream['id']}/events") as response:
        events = events_of(response)
        assert next(events)[:2] == (1, "planned")
        web.delete(f"/v1/streams/{stream['id']}")
        assert [name for _, name, _ in events] == ["closed"]


def test_whoever_listens_to_an_answer_hears_that_its_stream_is_closed_under_it(
    web: httpx2.Client, clip: Path, words: HeldWords
):
    words.hold_after(FEW_STEPS)
    url = f"/v1/streams/{opened(web, clip)['id']}"
    asked = {"question": "Why?", "stream": True, "max_tokens": 1_000}
    with web.stream("POST", f"{url}/ask", json=asked) as response:
        heard = events_of(response)
        next(name for _, name, _ in heard if name == "words")
        web.delete(url)
        *_, (_, name, data) = heard
    assert (name, data["error"]["code"]) == ("failed", "stopped")


def test_boxes_come_in_pixels_of_the_picture(web: httpx2.Client, clip: Path):
    stream = opened(web, clip)
    found = web.post(
        f"/v1/streams/{stream['id']}/ground", json={"query": "a dog", "times_s": [0.5, 1.0]}
    ).json()
    assert {box["time_s"] for box in found["boxes"]} == {0.5, 1.0}
    assert found["source_width"] == stream["media"]["width"]


def test_a_sampled_frame_is_a_picture(web: httpx2.Client, clip: Path):
    stream = opened(web, clip)
    last = stream["plan"]["num_frames"] - 1
    for index in (0, last):
        response = web.get(f"/v1/streams/{stream['id']}/frames/{index}", params={"width": 32})
        assert response.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(response.content)).width == 32
    assert web.get(f"/v1/streams/{stream['id']}/frames/{last + 1}").status_code == 404


def test_the_page_may_load_nothing_from_elsewhere(web: httpx2.Client):
    page = web.get("/")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert web.get("/page/index.html").status_code == 200
    assert web.get("/page/../app.py").status_code == 404


def test_every_answer_has_a_request_id(web: httpx2.Client):
    assert web.get("/healthz", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == (
        "mine-1"
    )
    assert (
        web.get("/nowhere", headers={"x-request-id": "a b"})
        .headers["x-request-id"]
        .startswith("req-")
    )
    assert [each["id"] for each in web.get("/v1/models").json()["data"]] == [MODEL]
    assert "ChatBody" in web.get("/openapi.json").json()["components"]["schemas"]


def test_a_body_that_is_sent_again_gets_the_answer_that_is_being_written(
    client: openai.OpenAI, web: httpx2.Client, clip: Path
):
    body = {"model": MODEL, "messages": asked(data_url(clip)), "stream": True}

    def said(headers: dict[str, str]) -> tuple[str, str, str]:
        with web.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            blocks = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
        chunks = [json.loads(block) for block in blocks]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        return chunks[0]["id"], text, chunks[-1]["vidray"]["stream"]

    with ThreadPoolExecutor(3) as at_once:
        several = list(at_once.map(said, [{}] * 3))
    assert len(set(several)) == 1
    stream = web.get(f"/v1/streams/{several[0][2]}").json()
    assert stream["counters"]["watched"] == 1
    assert len(stream["answers"]) == 1
    other = said({"idempotency-key": "another"})
    assert (other[0] != several[0][0], other[1]) == (True, several[0][1])


def test_a_chat_that_was_cut_off_is_read_on_from_its_last_event(web: httpx2.Client, clip: Path):
    body = {"model": MODEL, "messages": asked(data_url(clip)), "stream": True}
    with web.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = list(response.iter_lines())
    numbers = [int(line[4:]) for line in lines if line.startswith("id: ")]
    blocks = [line[6:] for line in lines if line.startswith("data: {")]
    completion = json.loads(blocks[0])["id"]
    for number, position in ((numbers[0], 1), (numbers[1], 2), (numbers[-1], len(blocks))):
        rest = web.get(f"/v1/chat/completions/{completion}", params={"after": number})
        again = [line[6:] for line in rest.text.splitlines() if line.startswith("data: {")]
        texts = [json.loads(each)["choices"] for each in again[:-1]]
        assert texts == [json.loads(each)["choices"] for each in blocks[position:]]
        assert json.loads(again[-1])["usage"]["completion_tokens"] > 0
        assert rest.text.endswith("data: [DONE]\n\n")


def test_an_answer_is_stopped_when_asked_to_be(web: httpx2.Client, clip: Path, words: HeldWords):
    words.hold_after(FEW_STEPS)
    stream = opened(web, clip)
    url = f"/v1/streams/{stream['id']}"
    names = []
    with web.stream(
        "POST", f"{url}/ask", json={"question": "Why?", "stream": True, "max_tokens": 1_000}
    ) as response:
        for _, name, data in events_of(response):
            names.append(name)
            if name == "words":
                answer = data["answer"]
                break
    stopped = web.delete(f"{url}/answers/{answer}").json()
    assert stopped["status"] == "failed"
    assert stopped["text"]
    assert names[0] == "asked"


def test_what_an_operator_measures_is_counted(web: httpx2.Client, clip: Path):
    stream = opened(web, clip)
    web.post(f"/v1/streams/{stream['id']}/ask", json={"question": "Why?"})
    page = web.get("/metrics").text
    route = 'method="POST",route="/v1/streams/{stream_id}/ask",status="200"'
    assert f"vidray_requests_total{{{route}}}" in page
    assert 'vidray_answers_total{status="done"}' in page
    assert "vidray_first_word_seconds_bucket" in page
    tokens = float(re.search(r'vidray_tokens_total{stage="prefill"} (\S+)', page)[1])
    assert tokens >= stream["plan"]["num_tokens"]
    shown = {row["title"]: row["panels"] for row in web.get("/v1/sight").json()["rows"]}
    panels = {panel["title"]: panel["values"] for row in shown.values() for panel in row}
    assert set(shown) == {"Work", "Endpoint"}
    assert float(panels["Open streams"][0]["value"]) >= 1
    assert {each["of"] for each in panels["Tokens"]} == {"encode", "prefill", "generate"}


def test_one_key_asks_only_so_often(model_folder: Path, tmp_path: Path):
    with (
        bare_endpoint(tmp_path, key_requests=2) as address,
        httpx2.Client(base_url=address, timeout=TIMEOUT_S) as web,
    ):
        statuses = [web.post("/v1/streams", json={}).status_code for _ in range(3)]
    assert statuses == [422, 422, 429]


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
