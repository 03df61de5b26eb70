"""Many clients at once: what they cost, and that good ones do not notice bad ones."""
import contextlib
import os
import threading

import pytest
from serving import Server, chat, post
from test_http import idle, stream_begin, wait_for

STREAMS = 1000


def rss(server):
    with open(f"/proc/{server.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))


def files(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.mark.skipif("ADALLM_BUILD" in os.environ, reason="builds with sanitizers need more memory")
def test_idle_streams_are_cheap(ada):
    """A thousand open streams that wait for their turn."""
    server = Server(ada, "--max-num-seqs", "1", "--max-waiting-requests", "2000", "--disable-log-requests", "--ping-interval", "1")
    try:
        hold = [stream_begin(server, max_tokens=4000, n=60) for _ in range(2)]
        before, fds = rss(server), files(server)
        held = [server.raw(post("/v1/chat/completions", chat(stream=True, max_tokens=8))) for _ in range(STREAMS)]
        assert wait_for(lambda: server.metric("adallm:num_requests_waiting") >= STREAMS, 30)
        grown = rss(server) - before
        assert grown <= 64 << 20, grown
        assert server.call("/health")[0] == 200
        [s.close() for s in held + hold]
        assert wait_for(lambda: idle(server), 30) and wait_for(lambda: files(server) <= fds, 10)
    finally:
        server.end()


def test_bad_requests_do_not_touch_good_ones(ada):
    server = Server(ada, "--disable-log-requests")
    bad = [post("/v1/completions", b"{"), post("/v1/completions", {"prompt": [10**9]}), post("/v1/completions", {"prompt": "x", "logit_bias": {"99999": 1}}),
           post("/v1/completions", {"prompt": "x", "stop_token_ids": [-1]}), post("/v1/completions", {"prompt": "x", "n": 2**31}), b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
           post("/v1/completions", {"prompt": "x", "max_tokens": 10**6}), post("/v1/chat/completions", {"messages": [{"role": "user"}]})]
    body = {"prompt": "Once", "max_tokens": 60, "temperature": 1, "seed": 7, "ignore_eos": True, "return_token_ids": True}
    try:
        want = server.call("/v1/completions", body)[1]["choices"][0]["token_ids"]
        got, stop, count = [], threading.Event(), [0]

        def good():
            for _ in range(4):
                got.append(server.call("/v1/completions", body)[1]["choices"][0]["token_ids"])

        def wrong(k):
            while not stop.is_set():
                with contextlib.suppress(OSError), contextlib.closing(server.raw(bad[count[0] % len(bad)], 1)) as s:
                    count[0] += 1
                    answer = s.recv(4096)
                    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
        threads = [threading.Thread(target=wrong, args=(k,)) for k in range(3)]
        goods = [threading.Thread(target=good) for _ in range(8)]
        [t.start() for t in threads + goods]
        [t.join() for t in goods]
        stop.set()
        [t.join() for t in threads]
        assert len(got) == 32 and all(g == want for g in got) and count[0] > 50
        assert wait_for(lambda: idle(server)) and server.metric("adallm:kv_pages") == 0
    finally:
        server.end()
