"""The endpoint's page in a real browser. Skipped where there is no Chromium, Debian's for one."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobs.models import DEMO_MODEL, find_model
from tests.end_to_end.test_serve import serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
DEADLINE_MS = 90_000
CAPTION = (
    "A cyan circle moves right and appears. A green star moves up. A orange circle stays still."
)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
TYPING = PHONE | {"height": 400}  # its keyboard has the rest
LONG = "Write on and on."
expect.set_options(timeout=DEADLINE_MS)


class Opened(NamedTuple):
    """A page, and what its console complained about."""

    page: Page
    complaints: list[str]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(find_model(DEMO_MODEL), "--in-process") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The container of a test run has no user namespaces for its sandbox; the page is our own.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def opened(address: str, browser: Browser) -> Iterator[Opened]:
    """The page at its beginning."""
    page = browser.new_page(viewport=WIDE)
    page.set_default_timeout(DEADLINE_MS)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    yield Opened(page, complaints)
    page.close()


def take_example(page: Page) -> None:
    page.get_by_role("button", name="Try the example").click()
    page.locator("video, .player img").wait_for()


def ask(page: Page, question: str) -> None:
    page.get_by_role("tab", name="Ask").click()
    page.locator("#question").fill(question)
    page.keyboard.press("Enter")


def answer(page: Page, question: str) -> str:
    """Its text, once it is whole."""
    item = page.locator(".answers li[data-status=done]").filter(has_text=question).first
    return item.locator(".text").inner_text()


def test_a_caption_a_question_and_a_follow_up_of_a_clip_that_is_read_once(opened: Opened):
    page = opened.page
    take_example(page)
    assert "token" in page.locator(".plan").inner_text()
    ask(page, "Describe the video.")
    assert answer(page, "Describe the video.") == CAPTION
    strip = page.locator(".strip ol")
    assert strip.get_attribute("data-prefilled") == strip.get_attribute("data-frames") != "0"
    ask(page, "Which way does the green star move?")
    assert "up" in answer(page, "Which way does the green star move?")
    latest = page.locator(".answers li").first
    assert "0 s read again" in latest.inner_text()
    assert "tokens reused" in latest.inner_text()
    assert opened.complaints == []


def test_a_box_lands_on_the_shape(opened: Opened):
    page = opened.page
    take_example(page)
    page.locator(".strip button").nth(2).wait_for()
    ask(page, "What is there?")
    answer(page, "What is there?")
    page.locator(".strip button").nth(2).click()
    page.get_by_role("tab", name="Find").click()
    page.locator("#question").fill("the green star")
    page.keyboard.press("Enter")
    page.locator(".finds button").filter(has_text="found at").first.click()
    page.locator(".boxes[data-boxes='1']").wait_for()
    picture = np.asarray(
        Image.open(io.BytesIO(page.locator(".player").screenshot())).convert("RGB")
    )
    red, green, blue = (picture[..., index].astype(int) for index in range(3))
    star = (green > 120) & (red < 90) & (blue < 110)
    box = (red > 200) & (green > 130) & (blue < 60)  # amber
    rows, columns = np.nonzero(box & ~_near_top(box))
    inside = star[rows.min() : rows.max(), columns.min() : columns.max()]
    assert star.sum() > 500
    assert inside.sum() > 0.9 * star.sum()


def _near_top(picture: np.ndarray) -> np.ndarray:
    """Where the orange circle is, whose colour is much like the box's."""
    mask = np.zeros_like(picture)
    mask[: picture.shape[0] // 3] = True
    return mask


def test_a_reload_in_mid_answer_ends_in_the_same_words(opened: Opened):
    page = opened.page
    take_example(page)
    ask(page, "Describe the video again.")
    page.locator(".answers li").first.wait_for()
    page.reload()
    text = answer(page, "Describe the video again.")
    answers = page.locator(".answers li")
    num_answers = answers.count()
    ask(page, "Describe the video again.")
    expect(answers).to_have_count(num_answers + 1)
    expect(answers.first).to_have_attribute("data-status", "done", timeout=DEADLINE_MS)
    assert page.locator(".answers .text").first.inner_text() == text


def copied(page: Page, question: str, kind: str) -> str:
    item = page.locator(".answers li[data-status=done]").filter(has_text=question).first
    item.get_by_role("button", name=kind, exact=True).click()
    item.get_by_role("status").filter(has_text=f"copied {kind}").wait_for()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_what_is_copied_asks_the_same_and_reads_nothing_again(address: str, opened: Opened):
    page = opened.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    take_example(page)
    page.get_by_role("tab", name="JSON").click()
    schema = {"enum": ["moves left", "moves right", "stays still"]}
    page.locator("textarea").fill(json.dumps(schema))
    page.locator("#question").fill("Where does it go?")
    page.keyboard.press("Enter")
    said = answer(page, "Where does it go?")
    assert json.loads(said) in schema["enum"]
    program = copied(page, "Where does it go?", "Python")
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (again.stdout, again.stderr) == (said, "")
    page.locator(".answers li").first.get_by_role("button", name="follow up").click()
    ask(page, "What colour is the circle?")
    answer(page, "What colour is the circle?")
    *_, body = shlex.split(copied(page, "What colour is the circle?", "curl"))
    messages = json.loads(body)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == said
    with httpx2.Client(base_url=address, timeout=60) as web:
        chat = json.loads(body) | {"stream": False, "seed": 1}  # no body that was sent before
        usage = web.post("/v1/chat/completions", json=chat).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0


def test_everything_is_reached_by_keyboard(opened: Opened):
    page = opened.page
    page.get_by_role("button", name="Try the example").focus()
    page.keyboard.press("Enter")
    page.locator("video, .player img").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("Where is the circle?")
    page.keyboard.press("Enter")
    assert answer(page, "Where is the circle?")
    page.get_by_role("slider", name="watch from").focus()
    with page.expect_response(lambda response: response.url.endswith("/v1/streams")):
        page.keyboard.press("PageUp")
    expect(page.locator(".stretch output")).not_to_contain_text("0.00 s to")


def test_on_a_phone_what_was_found_comes_into_view(opened: Opened):
    page = opened.page
    page.set_viewport_size(TYPING)
    take_example(page)
    page.get_by_role("tab", name="Find").click()
    page.locator("#question").fill("the green star")
    page.locator("#question").evaluate("input => input.scrollIntoView({block: 'start'})")
    player = page.locator(".player")
    expect(player).not_to_be_in_viewport(ratio=0.5)
    page.keyboard.press("Enter")
    page.locator(".boxes[data-boxes='1']").wait_for()
    expect(player).to_be_in_viewport(ratio=0.99)
    page.locator("#question").evaluate("input => input.scrollIntoView({block: 'start'})")
    expect(player).not_to_be_in_viewport(ratio=0.5)
    page.locator(".finds button").filter(has_text="found at").first.click()
    expect(player).to_be_in_viewport(ratio=0.99)


def test_an_answer_that_nobody_listened_to_goes_on_when_asked_to(address: str, opened: Opened):
    page = opened.page
    take_example(page)
    url = page.url
    page.goto("about:blank")  # nobody listens to the stream
    with httpx2.Client(base_url=address, timeout=DEADLINE_MS / 1_000) as web:
        path = f"/v1/streams/{url.partition('#')[2]}"
        with web.stream("POST", "/v1/chat/completions", json=long_chat(web, path)) as chat:
            next(chat.iter_lines())
        until(lambda: web.get(path).json()["answers"][-1]["status"] == "paused")
        so_far = web.get(path).json()["answers"][-1]["text"]
        page.goto(url)
        item = page.locator(".answers li").filter(has_text=LONG)
        expect(item).to_have_attribute("data-status", "paused", timeout=DEADLINE_MS)
        item.get_by_role("button", name="go on").click()
        whole = answer(page, LONG)
        assert len(whole) > len(so_far)
        assert whole == web.get(path).json()["answers"][-1]["text"]
    assert opened.complaints == []


def test_a_page_that_has_heard_more_than_its_server_knows_hears_all_again(opened: Opened):
    page = opened.page
    last_of_another = 'id: 99999\nevent: closed-before\ndata: {"of": "a server that ended"}\n\n'
    page.route(
        "**/events",
        lambda route: route.fulfill(body=last_of_another, content_type="text/event-stream"),
        times=1,
    )
    with page.expect_response(lambda got: got.status == 422):
        take_example(page)
    ask(page, "What stays still?")
    assert answer(page, "What stays still?")
    # Others' answers are heard again too; that one of them was cut is no complaint.
    item = page.locator(".answers li").filter(has_text="What stays still?")
    expect(item.locator(".error")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("This stream is closed")).to_have_count(0)


def long_chat(web: httpx2.Client, path: str) -> dict[str, Any]:
    """About a stream's video; it takes longer than the second after which nobody's is paused."""
    video = {"type": "file", "file": {"file_id": web.get(path).json()["file_id"]}}
    schema = {"type": "string", "minLength": 10_000}
    return {
        "model": web.get("/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": [video, {"type": "text", "text": LONG}]}],
        "max_tokens": 1_000,
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        "stream": True,
    }


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_MS / 1_000
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_phone_and_the_dark_have_all_of_it(opened: Opened):
    page = opened.page
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="dark")
    take_example(page)
    ask(page, "Describe the video.")
    answer(page, "Describe the video.")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(20, 21, 23)"
    )


def test_an_operator_sees_rates_queues_and_failures(opened: Opened):
    page = opened.page
    take_example(page)
    ask(page, "Which way does the circle move?")
    answer(page, "Which way does the circle move?")
    page.get_by_role("button", name="operator").click()
    tokens = page.locator(".panels article").filter(has_text="Tokens")
    expect(tokens).to_contain_text("prefill")
    streams = page.locator(".panels article").filter(has_text="Open streams")
    expect(streams).to_contain_text(re.compile("[1-9]"))
    assert "KV cache" in page.locator(".operator").inner_text()
    page.get_by_role("button", name="operator").click()
    assert answer(page, "Which way does the circle move?")  # the clip is where it was
    assert opened.complaints == []
