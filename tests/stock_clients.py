"""Stock clients of the endpoint, run by an interpreter that has them: prints what it answered.

python tests/stock_clients.py openai|litellm|langchain ADDRESS/v1 CLIP
"""

import base64
import sys
from pathlib import Path

MODEL = "vidray-demo"
QUESTION = "What moves?"


def by_openai(address: str, url: str) -> str:
    import openai

    client = openai.OpenAI(base_url=address, api_key="none")
    chunks = client.chat.completions.create(model=MODEL, messages=asked(url), stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def by_litellm(address: str, url: str) -> str:
    import litellm

    answer = litellm.completion(
        model=f"hosted_vllm/{MODEL}", api_base=address, api_key="none", messages=asked(url)
    )
    return str(answer.choices[0].message.content)


def by_langchain(address: str, url: str) -> str:
    from langchain_core.messages import HumanMessage
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=MODEL, base_url=address, api_key="none")
    return str(chat.invoke([HumanMessage(content=asked(url)[0]["content"])]).content)


def asked(url: str) -> list[dict[str, object]]:
    parts = [
        {"type": "video_url", "video_url": {"url": url}},
        {"type": "text", "text": QUESTION},
    ]
    return [{"role": "user", "content": parts}]


CLIENTS = {"openai": by_openai, "litellm": by_litellm, "langchain": by_langchain}

if __name__ == "__main__":
    name, address, clip = sys.argv[1:]
    data = base64.b64encode(Path(clip).read_bytes()).decode()
    print(CLIENTS[name](address, f"data:video/mp4;base64,{data}"))
