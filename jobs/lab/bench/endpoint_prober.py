"""A client in a process of its own, who asks now and then while others make the load.

`python -m jobs.lab.bench.endpoint_prober ADDRESS FILE_ID` asks until its standard input ends, and
then says a line of JSON: [[status, seconds until it came], ...]. So nothing is measured of a loop
that has hundreds of clients to feed itself.
"""

import json
import sys
import threading
import time
from http.client import HTTPConnection

from jobs.lab.bench.endpoint_client import another_key, chat_body

PAUSE_S = 0.1
TIMEOUT_S = 60.0


def run(address: str, file_id: str) -> None:
    """Ask, and hang up as soon as it is accepted or refused."""
    is_over = threading.Event()

    def await_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=await_end, daemon=True).start()
    seen: list[tuple[int, float]] = []
    model = str(json.loads(_asked(address, "GET", "/v1/models")[1])["data"][0]["id"])
    body = json.dumps(chat_body(model, file_id, "What moves?") | {"max_tokens": 1})
    while not is_over.wait(PAUSE_S):
        asked_s = time.monotonic()
        status, _ = _asked(address, "POST", "/v1/chat/completions", body)
        seen.append((status, time.monotonic() - asked_s))
    print(json.dumps(seen), flush=True)


def _asked(address: str, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """Status, and what comes with it of a GET."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, another_key())
        answer = connection.getresponse()
        return answer.status, answer.read() if method == "GET" else b""
    finally:
        connection.close()


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2])
