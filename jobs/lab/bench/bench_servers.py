"""Two servers on one checkpoint in one run: vidray's endpoint and vLLM's, asked by one client.

The same clip, sent in the same body, as many frames of the same size; words are of random weights
and at most so many. vLLM is somebody's own: --vllm names the Python of a venv where it serves.
"""

import asyncio
import base64
import json
import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from jobs.lab.bench.bench_clips import make_clip
from jobs.lab.bench.endpoint_places import SERVE, answering
from jobs.lab.bench.peers import transformers_processor
from jobs.lab.bench.random_checkpoint import random_checkpoint
from jobs.lab.free_ports import free_port

DURATION_S = 60
NUM_PIXELS = 112_896  # 252x448, as bench overlap has it
SHORT_S = 4
WORDS = 32
CLIENTS = (1, 8, 32)
NUM_FOLLOW_UPS = 10
START_S = 300.0
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'video' or 'video_url' in part %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Heard:
    """Of one answer: seconds from the request to its first word and to its end; its usage.

    stream: vidray's own, which it was given on.
    """

    first_word_s: float
    total_s: float
    usage: dict[str, Any] = field(default_factory=dict)
    stream: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """One of both. more: what its requests say beside the question."""

    name: str
    address: str
    model: str
    more: dict[str, Any]

    @asynccontextmanager
    async def web(self) -> AsyncIterator[aiohttp.ClientSession]:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=600.0)
        async with aiohttp.ClientSession(
            self.address, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
        ) as web:
            yield web

    async def ask(
        self, web: aiohttp.ClientSession, video: str, question: str, *, words: int
    ) -> Heard:
        """A video as data: and a question."""
        parts = [
            {"type": "video_url", "video_url": {"url": video}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": parts}],
            "max_tokens": words,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.more,
        }
        started_s, first_s = time.monotonic(), 0.0
        usage: dict[str, Any] = {}
        stream = ""
        async for chunk in self._told(web, "/v1/chat/completions", body):
            usage = chunk.get("usage") or usage
            stream = chunk.get("vidray", {}).get("stream", stream)
            if not first_s and any(each["delta"].get("content") for each in chunk["choices"]):
                first_s = time.monotonic() - started_s
        total_s = time.monotonic() - started_s
        return Heard(first_s or total_s, total_s, usage, stream)

    async def ask_on(self, web: aiohttp.ClientSession, stream: str, question: str) -> Heard:
        """A question on a stream of vidray's that is open."""
        body = {"question": question, "max_tokens": 1, "temperature": 0, "stream": True}
        started_s, first_s = time.monotonic(), 0.0
        async for event in self._told(web, f"/v1/streams/{stream}/ask", body):
            if not first_s and event.get("text"):
                first_s = time.monotonic() - started_s
        total_s = time.monotonic() - started_s
        return Heard(first_s or total_s, total_s)

    async def _told(
        self, web: aiohttp.ClientSession, path: str, body: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """The data of each server-sent event."""
        async with web.post(path, json=body) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{self.name}: {answer.status}: {await answer.text()}")
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    told: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                    if "error" in told and told["error"] is not None:
                        raise RuntimeError(f"{self.name}: {told}")
                    yield told


def show(console: Console, folder: Path, *, rounds: int, threads: int, vllm: Path | None) -> None:
    """Measure and print. vllm: the Python it is installed for; without it vidray stands alone."""
    checkpoint = served_checkpoint(folder / "served-checkpoint")
    long = make_clip(folder, duration_s=DURATION_S, width=1280, height=720)
    short = make_clip(folder, duration_s=SHORT_S, width=1280, height=720)
    with ExitStack() as stack:
        servers = [_vidray(stack, checkpoint)]
        if vllm is None:
            console.print("without vLLM: --vllm names the Python of a venv that has it")
        else:
            with console.status("vLLM loads"):
                servers.append(_vllm(stack, folder, checkpoint, vllm, threads=threads))
        rows = asyncio.run(_measured(servers, long, short, rounds))
    table = Table(title="two servers, one checkpoint of 149 M parameters", title_justify="left")
    table.add_column("what")
    for each in servers:
        table.add_column(each.name, justify="right")
    for what, *cells in rows:
        table.add_row(what, *cells)
    console.print(table)


async def _measured(
    servers: list[Server], long: Path, short: Path, rounds: int
) -> list[tuple[str, ...]]:
    """Rows; in turn, so that both see the same noise of the machine."""
    seen: dict[tuple[str, str], list[float]] = defaultdict(list)
    num_prompt: dict[str, str] = {}
    on_stream: list[float] = []  # vLLM has none
    numbers = count()
    for server in servers:
        await _written(server, short, 1, numbers)  # warm
    for number in range(rounds):
        for server in servers:
            first, *more = await _watched(server, as_data(long, number))
            seen["first", server.name].append(first.first_word_s)
            seen["more", server.name] += [each.first_word_s for each in more]
            slowest_s = max(each.first_word_s for each in more)
            seen["sooner", server.name].append(first.first_word_s / slowest_s)
            if first.stream:
                asked = await _asked_on(server, first.stream)
                slowest_s = max(each.first_word_s for each in asked)
                on_stream.append(first.first_word_s / slowest_s)
            num_prompt[server.name] = f"{first.usage['prompt_tokens']:,}"
    for clients in CLIENTS:
        for _ in range(rounds):
            for server in servers:
                rate, first_word_s = await _written(server, short, clients, numbers)
                seen[f"rate {clients}", server.name].append(rate)
                seen[f"first {clients}", server.name].append(first_word_s)

    def row(what: str, name: str, form: str) -> tuple[str, ...]:
        middle = (statistics.median(seen[name, each.name]) for each in servers)
        return (what, *(form.format(each) for each in middle))

    rows = [
        (f"tokens of a question about {DURATION_S} s", *num_prompt.values()),
        row(f"first word about {DURATION_S} s", "first", "{:.2f} s"),
        row("first word of a follow-up, the clip sent again", "more", "{:.2f} s"),
        row(f"the slowest of {NUM_FOLLOW_UPS} comes so many times sooner", "sooner", "{:.1f}"),
        (f"and of {NUM_FOLLOW_UPS} on the open stream", f"{statistics.median(on_stream):.1f}"),
    ]
    for clients in CLIENTS:
        rows.append(row(f"words/s, {clients} at once", f"rate {clients}", "{:,.0f}"))
        rows.append(row(f"first word, {clients} at once", f"first {clients}", "{:.2f} s"))
    return rows


async def _watched(server: Server, video: str) -> list[Heard]:
    """A first question about a video that nobody has seen, then others, one after the other."""
    questions = ["What happens?", *(f"What is number {each}?" for each in range(NUM_FOLLOW_UPS))]
    async with server.web() as web:
        return [await server.ask(web, video, question, words=1) for question in questions]


async def _asked_on(server: Server, stream: str) -> list[Heard]:
    """The same on the stream that the first question has opened."""
    async with server.web() as web:
        questions = (f"Where is number {each}?" for each in range(NUM_FOLLOW_UPS))
        heard = [await server.ask_on(web, stream, question) for question in questions]
        async with web.get(f"/v1/streams/{stream}") as answer:
            counters = (await answer.json())["counters"]
    if counters["watched"] != 1:
        raise RuntimeError(f"the clip was watched {counters['watched']} times")
    return heard


async def _written(
    server: Server, clip: Path, clients: int, numbers: Iterator[int]
) -> tuple[float, float]:
    """Words a second of so many at once about one clip, and the middle one's first word."""
    video = as_data(clip)
    started_s = time.monotonic()
    async with server.web() as web:
        heard = await asyncio.gather(
            *(
                server.ask(web, video, f"What is number {next(numbers)}?", words=WORDS)
                for _ in range(clients)
            )
        )
    took_s = time.monotonic() - started_s
    num_words = sum(int(each.usage["completion_tokens"]) for each in heard)
    return num_words / took_s, statistics.median(each.first_word_s for each in heard)


def served_checkpoint(folder: Path) -> Path:
    """The random one with all files that a server of either kind wants."""
    if not (folder / "chat_template.jinja").exists():
        random_checkpoint(folder)
        processor: Any = transformers_processor(folder, num_pixels=NUM_PIXELS)
        processor.tokenizer.eos_token = "<|im_end|>"  # noqa: S105 - no password
        processor.save_pretrained(folder)
        (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def _vidray(stack: ExitStack, checkpoint: Path) -> Server:
    address = stack.enter_context(answering([*SERVE, "--model", str(checkpoint)])).address
    more = {"media_io_kwargs": {"video": {"fps": 1.0}}}
    return Server("vidray", address, checkpoint.name, more)


def _vllm(
    stack: ExitStack, folder: Path, checkpoint: Path, python: Path, *, threads: int
) -> Server:
    port = free_port()
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_PLUGINS": "",  # as it comes, without vidray's
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "OMP_NUM_THREADS": str(threads),
    }
    command = [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint),
        "--served-model-name", checkpoint.name, "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", "8192", "--max-num-batched-tokens", "8192",
        "--enforce-eager",
        "--media-io-kwargs", json.dumps({"video": {"fps": 1, "num_frames": -1}}),
        "--max-num-seqs", "64", "--limit-mm-per-prompt", '{"video": 1, "image": 0}',
    ]  # fmt: skip
    log_file = folder / "vllm.log"
    log = stack.enter_context(log_file.open("wb"))
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    stack.callback(process.wait, 60)
    stack.callback(process.terminate)
    address = f"http://127.0.0.1:{port}"
    asyncio.run(_until_healthy(address, process, log_file))

    return Server("vLLM", address, checkpoint.name, {"ignore_eos": True})


async def _until_healthy(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    async with asyncio.timeout(START_S), aiohttp.ClientSession(address) as web:
        while process.poll() is None:
            try:
                async with web.get("/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.5)
    raise RuntimeError(f"vLLM ended: {log.read_text('utf-8', 'replace')[-2_000:]}")


def as_data(clip: Path, number: int = 0) -> str:
    """As data:, other bytes for each number: the rest of an mp4 may be anything in a box `free`."""
    padding = b"\0\0\0\x0cfree" + number.to_bytes(4, "big")
    return f"data:video/mp4;base64,{base64.b64encode(clip.read_bytes() + padding).decode()}"
