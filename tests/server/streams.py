"""Streams of /v1/completions side by side, for measurements: while they run only bytes and times are kept, which are read afterwards. Wants Python alone."""
import json
import selectors
import socket
import time

SILENT_S = 120


class Stream:
    def __init__(self, address, name, **fields):
        body = json.dumps({"temperature": 0, "stream": True, "stream_options": {"include_usage": True}, "return_token_ids": True, **fields}).encode()
        self.request = (f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n").encode() + body
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name, self.parts, self.times = name, [], []

    def take(self):
        """False: the server has closed the connection."""
        data = self.socket.recv(1 << 16)
        self.parts.append(data)
        self.times.append(time.perf_counter())
        return bool(data)

    def chunks(self):
        """(bytes, when their last one came) of the body."""
        raw, ends, which = b"".join(self.parts), [], 0
        for part in self.parts:
            ends.append((ends[-1] if ends else 0) + len(part))
        if not raw.startswith(b"HTTP/1.1 200") or b"\r\n\r\n" not in raw:
            raise ValueError(f"no stream: {raw[:2000]!r}")
        at = raw.index(b"\r\n\r\n") + 4
        while True:
            line = raw.index(b"\r\n", at)
            n = int(raw[at:line], 16)
            if not n:
                return
            at = line + 2 + n
            while ends[which] < at:
                which += 1
            yield raw[line + 2:at], self.times[which]
            at += 2

    def read(self):
        """[(when it came, [token ids that it told])], an item an event; ValueError when the stream is not whole."""
        out, usage, rest, done = [], None, b"", False
        for data, when in self.chunks():
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                done |= event == b"data: [DONE]"
                if not event.startswith(b"data: {"):
                    continue
                told = json.loads(event[6:])
                usage = told.get("usage") or usage
                ids = [i for c in told.get("choices", []) for i in c.get("token_ids") or []]
                if ids:
                    out.append((when, ids))
        n = sum(len(ids) for _, ids in out)
        if not done or not usage or usage["completion_tokens"] != n:
            raise ValueError(f"a stream broke off after {n} tokens, usage {usage}: {b''.join(self.parts)[-300:]!r}")
        return out


class Clients:
    """ended(stream) is told of each that the server has closed, and may begin another one."""
    def __init__(self, ended=lambda stream: None):
        self.selector, self.ended = selectors.EpollSelector(), ended

    def begin(self, stream):
        self.selector.register(stream.socket, selectors.EVENT_READ, stream)
        stream.socket.sendall(stream.request)

    def run(self):
        """Until no stream is open. Share of this time that this thread was busy."""
        begin, cpu = time.perf_counter(), time.thread_time()
        while self.selector.get_map():
            ready = self.selector.select(SILENT_S)
            if not ready:
                raise TimeoutError(f"no token in {SILENT_S} s")
            for key, _ in ready:
                if not key.data.take():
                    self.selector.unregister(key.fileobj)
                    key.fileobj.close()
                    self.ended(key.data)
        return (time.thread_time() - cpu) / (time.perf_counter() - begin)
