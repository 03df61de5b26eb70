"""Clients that leave in the middle are counted."""
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
