"""What the tests of the server share: a compiled fixture, a running server, raw HTTP."""
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from tools import BUILD, MODELS, ROOT, compile_model  # noqa: E402,F401


class Server:
    def __init__(self, ada, *arguments, env=None, serve_verb=False, log=None):
        command = [str(BUILD / "adallm-rt"), *(["serve"] if serve_verb else []), str(ada), "--port", "0", "--threads", "1", *map(str, arguments)]
        self.log = open(log, "w+") if log else None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log or subprocess.DEVNULL, text=True, cwd=ROOT,
                                        env=dict(os.environ, **(env or {})))
        line = self.process.stdout.readline()
        found = re.search(r"ready at (\S+?), model", line)
        assert found, f"no server: {line!r}, exit {self.process.wait(10)}"
        self.url = found[1]
        self.port = int(self.url.rsplit(":", 1)[1]) if self.url.startswith("http") else None

    def stop(self, code=0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            got = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.process.stdout.close()
        assert got == code, f"exit {got}"

    def end(self):
        """At once, whatever runs; for the end of a test that may have failed."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def call(self, path, body=None, method=None, headers=None):
        """(status, parsed JSON or text, headers)"""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as r:
                status, text, got = r.status, r.read().decode(), r.headers
        except urllib.error.HTTPError as e:
            with e:
                status, text, got = e.code, e.read().decode(), e.headers
        try:
            return status, json.loads(text), got
        except ValueError:
            return status, text, got

    def raw(self, data=b"", timeout=30):
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        if data:
            s.sendall(data)
        return s

    def exchange(self, data, timeout=30):
        """Sends bytes; what comes back until the server closes or goes silent."""
        with contextlib.closing(self.raw(data, timeout)) as s:
            return read_all(s)

    def metric(self, name):
        for line in self.call("/metrics")[1].splitlines():
            if line.startswith(name + "{") or line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        raise KeyError(name)

    def events(self, path, body, headers=None):
        """Parsed events of a stream; [DONE] as None."""
        request = urllib.request.Request(self.url + path, data=json.dumps(body).encode(), headers=headers or {})
        with urllib.request.urlopen(request, timeout=60) as r:
            for block in r.read().decode().split("\n\n"):
                for line in block.split("\n"):
                    if line.startswith("data: "):
                        yield None if line == "data: [DONE]" else json.loads(line[6:])


def read_all(s):
    out = b""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        while piece := s.recv(65536):
            out += piece
    return out


def post(path, body, *headers, host="localhost"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(data)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + data


def chat(content="Hi", **fields):
    return {"model": "qwen3", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 6, **fields}
