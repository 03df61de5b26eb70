"""What `vllm bench serve` and guidellm send and read (both need torch, so they are not installed here): the same bodies, all at once, and
streams read piece by piece the way each of them does."""
import asyncio
import json

import aiohttp
import pytest
from serving import Server

N, TOKENS, PROMPT = 24, 12, "Once upon a time there was"
MODEL = {"model": "qwen3"}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
EACH_USAGE = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
PARTS = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
BODIES = {
    "vllm completions": ("/v1/completions", {**MODEL, "prompt": PROMPT, "repetition_penalty": 1.0, "max_tokens": TOKENS, "logprobs": None, **USAGE, "ignore_eos": True, "temperature": 0.0}),
    "vllm completions of ids": ("/v1/completions", {**MODEL, "prompt": [5, 7, 11], "repetition_penalty": 1.0, "max_tokens": TOKENS, "logprobs": None, **USAGE, "ignore_eos": True, "temperature": 0.0}),
    "vllm chat": ("/v1/chat/completions", {**MODEL, "messages": PARTS, "max_completion_tokens": TOKENS, **USAGE, "ignore_eos": True, "temperature": 0.0}),
    "guidellm completions": ("/v1/completions", {**MODEL, "prompt": PROMPT, "max_tokens": TOKENS, "stop": None, "ignore_eos": True, **EACH_USAGE}),
    "guidellm chat": ("/v1/chat/completions", {**MODEL, "messages": PARTS, "max_completion_tokens": TOKENS, "stop": None, "ignore_eos": True, **EACH_USAGE}),
    "guidellm whole": ("/v1/chat/completions", {**MODEL, "messages": PARTS, "max_completion_tokens": TOKENS, "stop": None, "ignore_eos": True}),
}


@pytest.fixture(scope="module")
def pinging(ada):
    """Comments between events, which readers have to skip."""
    s = Server(ada, "--ping-interval", "0.01", "--max-num-seqs", "4")
    yield s
    s.stop()


class Events:
    """Pieces as they come, each stripped, as vLLM's client does: an event may lack its empty line."""

    def __init__(self):
        self.text, self.objects, self.done = "", [], False

    def take(self, piece):
        self.text += piece.decode().strip()
        while self.text:
            event, cut, rest = self.text.partition("\n\n")
            if not cut and not self.whole(event):
                return
            self.text = rest
            self.one(event.strip())

    @staticmethod
    def whole(event):
        try:
            return event.startswith(":") or event == "data: [DONE]" or json.loads(event.removeprefix("data: ")) is not None
        except ValueError:
            return False

    def one(self, event):
        if event == "data: [DONE]":
            self.done = True
        elif not event.startswith(":"):
            self.objects.append(json.loads(event.removeprefix("data: ")))


async def ask(session, url, body, number):
    async with session.post(url, json=body, headers={"x-request-id": f"bench-{number}", "Authorization": "Bearer none"}) as r:
        assert r.status == 200, await r.text()
        assert r.headers["x-request-id"] == f"bench-{number}"
        if not body.get("stream"):
            return [await r.json()]
        events = Events()
        async for piece in r.content.iter_any():
            events.take(piece)
        assert events.done and not events.text
        return events.objects


async def ask_all(url, body):
    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*[ask(session, url, body, i) for i in range(N)])


@pytest.mark.parametrize("name", BODIES)
def test_bodies_of_load_generators(pinging, name):
    path, body = BODIES[name]
    for objects in asyncio.run(ask_all(pinging.url + path, body)):
        assert objects[-1]["usage"]["completion_tokens"] == TOKENS
        assert objects[-1]["usage"]["prompt_tokens"] == 3 if "ids" in name else objects[-1]["usage"]["prompt_tokens"] > 5
        if body.get("stream"):
            assert all(o["choices"] for o in objects[:-1]) and objects[-1]["choices"] == []
            assert objects[-2]["choices"][0]["finish_reason"] == "length"
            counts = [o["usage"]["completion_tokens"] for o in objects if "usage" in o]
            assert counts == sorted(counts) and counts[-2:] in ([TOKENS], [TOKENS, TOKENS]) and (len(counts) > 2) == ("guidellm" in name)
