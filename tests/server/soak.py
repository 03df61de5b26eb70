#!/usr/bin/env python3
"""Twice as many requests as the server can answer, for a long time, on the null device: streams, whole answers, choices, clients that
leave, that read slowly or not at all, half requests, bad ones.

    tests/server/soak.py [--seconds N] [--program PATH]

Fails when an answer is wrong, when memory grows, or when a connection, file, slot or page is left. PATH: null_server of another variant;
that of `asan` finds leaked bytes, too.
"""
import argparse
import asyncio
import collections
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OVERLOAD, CLIENTS_MAX, GROWTH_MAX = 2.3, 500, 1 << 20
KINDS = ["stream"] * 6 + ["choices"] * 2 + ["witness"] * 3 + ["leaves"] * 3 + ["slow", "half", "bad", "bad", "look"]
WITNESS = {"prompt": [5, 9, 2, 44, 17], "max_tokens": 30, "temperature": 0, "seed": 3, "return_token_ids": True}
BAD = [b"{", b"[]", b'{"prompt": [999]}', b'{"prompt": [1], "n": 1000}', b'{"prompt": [1], "max_tokens": 100000}', b'{"prompt": [1], "temperature": "hot"}',
       b'{"prompt": [1], "stream": 1}', b'{"prompt": [1], "stop": [""]}', b'{"prompt": []}', b'{"prompt": [1], "logit_bias": {"x": 1}}']


class Soak:
    def __init__(self, program):
        tunables = dict(os.environ, GLIBC_TUNABLES="glibc.malloc.tcache_count=0")  # or what threads keep counts as in use
        self.process = subprocess.Popen([program], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=tunables)
        self.port = int(re.search(r":(\d+), model", self.process.stdout.readline())[1])
        self.random, self.counts, self.want = random.Random(1), collections.Counter(), None
        self.answered = 0

    # ---- one request ----

    async def open(self, body, path="/v1/completions", method="POST", window=None):
        sock = socket.socket()
        if window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return reader, writer

    async def whole(self, body, **where):
        """(status, body); the connection ends with it."""
        reader, writer = await self.open(body if isinstance(body, bytes) else json.dumps(body).encode(), **where)
        try:
            answer = await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), rest

    def request(self, **fields):
        n = self.random.randint(1, 60)
        begin = [7, 7, 3, 12, 9, 1, 30, 2] * 3 if self.random.random() < 0.5 else []  # half of the prompts have a prefix in common
        return {"prompt": begin + [self.random.randrange(61) for _ in range(n)], "max_tokens": self.random.randint(1, 50), "seed": self.random.randrange(5), **fields}

    async def stream(self):
        status, answer = await self.whole(self.request(stream=True))
        assert status == 429 or (status == 200 and answer.rstrip().endswith(b"0")), (status, answer[-200:])
        assert status == 429 or b"data: [DONE]" in answer, answer[-300:]
        return status

    async def choices(self):
        status, answer = await self.whole(self.request(n=3))
        assert status == 429 or (status == 200 and len(json.loads(answer)["choices"]) == 3), (status, answer)
        return status

    async def witness(self):
        status, answer = await self.whole(WITNESS)
        if status == 200:
            ids = json.loads(answer)["choices"][0]["token_ids"]
            self.want = self.want or ids
            assert ids == self.want, (ids, self.want)
        return status

    async def leaves(self):
        reader, writer = await self.open(json.dumps({**self.request(stream=True), "max_tokens": 55}).encode())
        first = await asyncio.wait_for(reader.read(self.random.choice([1, 400, 2000])), 60)
        writer.transport.abort() if self.random.random() < 0.5 else writer.close()
        return 429 if first.startswith(b"HTTP/1.1 429") else 200

    async def unread(self, body, seconds):
        """Reads nothing for a while, then all that there is."""
        reader, writer = await self.open(json.dumps(body).encode(), window=2048)
        writer.transport.pause_reading()
        await asyncio.sleep(seconds)
        writer.transport.resume_reading()
        try:
            answer = await asyncio.wait_for(reader.read(), 60)
        except ConnectionError:
            answer = b""
        writer.close()
        return 429 if answer.startswith(b"HTTP/1.1 429") else 200

    async def slow(self):
        return await self.unread(self.request(stream=True, n=4), self.random.choice([0.5, 3]))

    async def stuck(self):
        """More than the socket's buffers hold: the server cuts it."""
        return await self.unread({"prompt": [[4, 4]] * 8, "stream": True, "n": 8, "logprobs": 20, "max_tokens": 140}, 4)

    async def half(self):
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.random.choice([b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{\"prompt\": ["]))
        await asyncio.sleep(self.random.choice([0.1, 4]))
        writer.transport.abort()
        return 0

    async def bad(self):
        status, answer = await self.whole(self.random.choice(BAD))
        assert status == 400, (status, answer)
        return status

    async def look(self):
        status, _ = await self.whole(b"", path=self.random.choice(["/metrics", "/health", "/stats", "/v1/models"]), method="GET")
        assert status == 200, status
        return 0

    def pick(self):
        return "stuck" if self.random.random() < 0.0005 else self.random.choice(KINDS)

    async def one(self, kind):
        status = await getattr(self, kind)()
        self.counts[kind, status] += 1
        self.answered += status == 200

    # ---- many ----

    async def metrics(self):
        status, text = await self.whole(b"", path="/metrics", method="GET")
        assert status == 200
        return {m[1].decode(): float(m[2]) for m in re.finditer(rb"^adallm:(\w+)\{[^}]*\} (\S+)$", text, re.M)}

    def rss(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def crowd(self):
        """As many connections at once as there will ever be, each with the most that it may hold: memory is then what it will be."""
        body = json.dumps({"prompt": [4] * 100, "stop": ["x" * 1000]}).encode()
        held = []
        for _ in range(CLIENTS_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Filler: " + b"x" * 30000 + b"\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body)
            held.append(writer)
        await asyncio.sleep(1)
        for writer in held:
            writer.transport.abort()

    async def load(self, seconds):
        """Requests come at OVERLOAD times the rate at which they were answered in the last seconds; [bytes of memory, each second]."""
        open_, memory, begin, rate, due, last, most = set(), [], time.monotonic(), 100.0, 0.0, (0.0, 0), 0
        while (now := time.monotonic() - begin) < seconds:
            while due < now:
                due = max(due + 1 / rate, now - 1)
                if len(open_) < CLIENTS_MAX:
                    open_.add(asyncio.create_task(self.one(self.pick())))
            most = max(most, len(open_))
            done = {t for t in open_ if t.done()}
            open_ -= done
            [t.result() for t in done]
            if now - last[0] >= 1:
                rate = min(max(rate * 0.8 + 0.2 * OVERLOAD * (self.answered - last[1]) / (now - last[0]) * 1.4, 100), 2000)  # 5 of 19 kinds do not generate
                last = (now, self.answered)
                memory.append(self.rss())
                if len(memory) % 60 == 0:
                    print(f"{len(memory) // 60} minutes: {middle(memory[-60:]) / 1e6:.2f} MB, {self.answered} answered, up to {most} clients at once", flush=True)
                    most = 0
            assert self.process.poll() is None, "the server ended"
            await asyncio.sleep(0.002)
        await asyncio.gather(*open_)
        return memory

    async def rest(self):
        end = time.monotonic() + 30
        while True:
            m = await self.metrics()
            if not m["num_requests_running"] and not m["num_requests_waiting"] and m["connections"] == 1:
                return m
            assert time.monotonic() < end, m
            await asyncio.sleep(0.1)


async def soak(s, seconds):
    await s.witness()
    before = s.files()
    await s.crowd()
    await asyncio.gather(*[s.one("stuck") for _ in range(2)])
    memory = await s.load(seconds)
    m = await s.rest()
    await asyncio.sleep(0.2)
    files = s.files()
    assert files <= before, f"{files} files are open, {before} were before"
    assert m["kv_cache_usage_ratio"] == 0, m
    status = await s.witness()
    assert status == 200
    return memory, m


def middle(values):
    return sorted(values)[len(values) // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--program", default=str(ROOT / "build/release/tests/null_server"))
    args = parser.parse_args()
    s = Soak(args.program)
    try:
        memory, m = asyncio.run(soak(s, args.seconds))
        s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(60) == 0, "the server left something taken"
    finally:
        s.process.kill()
    by_kind = collections.defaultdict(dict)
    for (kind, status), n in sorted(s.counts.items()):
        by_kind[kind][status] = n
    print("\n".join(f"{kind:8} {dict(n)}" for kind, n in by_kind.items()))
    offered = sum(n for (kind, status), n in s.counts.items() if status in (200, 429))
    quarter = max(1, len(memory) // 4)
    early, late = middle(memory[2 * quarter:3 * quarter]), middle(memory[-quarter:])
    allowed = GROWTH_MAX * (1 if args.seconds >= 300 else 4)  # the first minutes still grow in steps: the largest requests are rare
    print(f"{offered} requests to generate, {offered / max(1, s.answered):.2f} times what was answered; {m['generation_tokens_total']:.0f} tokens, "
          f"{m['num_preemptions_total']:.0f} preemptions, {m['clients_gone_total']:.0f} clients gone, {m['clients_stalled_total']:.0f} stalled")
    print(f"memory: {early / 1e6:.2f} MB in the third quarter, {late / 1e6:.2f} MB in the last")
    assert "asan" in args.program or late - early <= allowed, memory
    assert s.counts["stream", 429] and m["num_preemptions_total"] and m["clients_gone_total"] and m["clients_stalled_total"], "the load is too light"


if __name__ == "__main__":
    main()
