"""Clients that leave in the middle are counted."""
import contextlib
import os
import socket

import pytest
from serving import chat, post
from test_http import idle, wait_for


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_are_counted(server, stream):
    before = server.metric("adallm:clients_gone_total")
    s = server.raw(post("/v1/chat/completions", chat(stream=stream, max_tokens=3000, ignore_eos=True)))
    assert wait_for(lambda: server.call("/stats")[1]["running"] == 1)
    s.close()
    assert wait_for(lambda: idle(server)) and server.metric("adallm:clients_gone_total") == before + 1
    assert server.call("/v1/chat/completions", chat())[0] == 200
    assert server.metric("adallm:clients_gone_total") == before + 1  # who got an answer is not one of them


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_connections_of_those_who_left_are_closed(server, version):
    """Clients that end their side in the middle of a stream, while an older connection stays open."""
    def files():
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))
    with contextlib.closing(server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")) as older, contextlib.ExitStack() as held:
        older.recv(1000)
        before = files()
        for _ in range(20):
            s = held.enter_context(contextlib.closing(server.raw(post("/v1/chat/completions", chat(stream=True, max_tokens=3000, ignore_eos=True))
                                                                 .replace(b"HTTP/1.1", b"HTTP/" + version.encode()))))
            assert s.recv(100)
            s.shutdown(socket.SHUT_WR)
        assert wait_for(lambda: files() <= before, 5), f"{files() - before} files more"
        whole = [server.exchange(post("/v1/chat/completions", chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/" + version.encode()), 1) for _ in range(3)]
        assert all(b"data: [DONE]" in answer for answer in whole)
        assert wait_for(lambda: files() <= before, 2), f"{files() - before} files more"  # whole ones, too
    assert wait_for(lambda: idle(server))


@pytest.mark.parametrize("begin", [b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{\"prompt\": ["])
def test_half_requests_with_their_end_are_closed(server, begin):
    """Bytes and the end of the client's side in one go, which an edge of epoll tells once."""
    before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    with contextlib.ExitStack() as held:
        for _ in range(300):
            s = held.enter_context(contextlib.closing(server.raw(begin)))
            s.shutdown(socket.SHUT_WR)
        assert wait_for(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= before, 5)
