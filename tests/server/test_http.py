"""HTTP at its edges, with raw sockets: framing, limits, slow and vanishing clients, who may come in."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from serving import BUILD, ROOT, Server, chat, post, read_all


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def status_of(answer):
    return int(re.match(rb"HTTP/1\.[01] (\d+)", answer)[1])


def idle(server):
    return server.metric("adallm:num_requests_running") == 0 and server.metric("adallm:num_requests_waiting") == 0


# ---- routes ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", ["/v1/models", "/models", "//v1//models/", "/v1/models/qwen3", "/health", "/ready", "/version", "/props", "/stats", "/metrics",
                                  "/tokenizer_info", "/"])
def test_get_routes(server, path):
    status, body, headers = server.call(path)
    assert status == 200 and headers["X-Request-Id"] and body
    assert server.call(path, method="HEAD")[:2] == (200, "")


def test_not_found_and_not_allowed(server):
    status, body, _ = server.call("/v1/embeddings", {})
    assert status == 404 and body["error"]["code"] == "not_found"
    status, body, headers = server.call("/v1/chat/completions")
    assert status == 405 and headers["Allow"] == "POST" and body["error"]["code"] == "method_not_allowed"
    assert server.call("/v1/models", {})[2]["Allow"] == "GET, HEAD"
    assert server.call("/v1/chat/completions", method="OPTIONS")[0] == 405


def test_request_ids(server):
    assert server.call("/health", headers={"X-Request-Id": "mine-1"})[2]["X-Request-Id"] == "mine-1"
    for bad in ("a b<c>", "x" * 500):
        assert re.fullmatch("[0-9a-f]{32}", server.call("/health", headers={"X-Request-Id": bad})[2]["X-Request-Id"])


def test_load(server):
    assert wait_for(lambda: server.call("/load")[1] == {"server_load": 0})
    with contextlib.closing(server.raw(post("/v1/chat/completions", chat(**LONG)))):
        assert wait_for(lambda: server.call("/load")[1] == {"server_load": 1})
    assert wait_for(lambda: server.call("/load")[1] == {"server_load": 0})


def test_tokenize_and_back(server):
    status, body, _ = server.call("/tokenize", {"prompt": "Hi there", "return_token_strs": True})
    assert status == 200 and body["count"] == len(body["tokens"]) == len(body["token_strs"]) and body["max_model_len"] == 4096
    assert server.call("/detokenize", {"tokens": body["tokens"]})[1]["prompt"] == "Hi there"
    assert server.call("/tokenize", {"content": "Hi there"})[1]["tokens"] == body["tokens"]
    n = server.call("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]})[1]["count"]
    assert n == server.call("/v1/chat/completions", chat())[1]["usage"]["prompt_tokens"]
    assert server.call("/detokenize", {"tokens": [-1]})[0] == 400 and server.call("/detokenize", {})[0] == 400


def test_metrics_are_well_formed(server):
    text = server.call("/metrics")[1]
    names = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in names, name
            names.add(name)
        elif not line.startswith("#"):
            assert re.fullmatch(r'[a-z_]+:[a-z_0-9]+\{([a-z_]+="[^"]*",?)+\} \S+', line), line
    assert {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "vllm:time_to_first_token_seconds",
            "vllm:request_success_total", "adallm:generation_tokens_total"} <= names
    before = server.metric("vllm:generation_tokens_total")
    server.call("/v1/chat/completions", chat(max_tokens=7))
    assert server.metric("vllm:generation_tokens_total") == before + 7


# ---- bodies ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"5", b"null", b"\xef\xbb\xbf{}", b'{"messages": "\xff"}', b'{"a": 1, "a": 2}', b'{"prompt": "\\u0000"}', b'{"prompt": "\\ud800"}',
    b'{"prompt": "\\udc00\\ud800"}', b'{"a": ' + b"[" * 100000 + b"]" * 100000 + b"}", b'{"temperature": 1e400, "prompt": "x"}', b'{"prompt": "x"} {}', b"{'a': 1}",
    b'{"prompt": "x", "max_tokens": 1e99}', b'{"prompt": "x", "max_tokens": -9223372036854775809}', b'{"prompt": "x", "n": 1.5}', b'{"prompt": {}}',
    b'{"prompt": [[]]}', b'{"prompt": [1, "x", 1.5]}', b'{"prompt": [99999999]}', b'{"prompt": ""}', b'{"prompt": [[1], "x", null]}'])
def test_bad_bodies(server, body):
    status, answer, _ = server.call("/v1/completions", body)
    assert status == 400 and answer["error"]["type"] == "invalid_request_error" and answer["error"]["message"]


def test_content_types(server):
    """Like curl -d; but no web page may do it."""
    body = json.dumps(chat()).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert server.call("/v1/chat/completions", body, headers=form)[0] == 200
    assert server.call("/v1/chat/completions", body, headers={**form, "Origin": "https://evil.example"})[0] == 415
    assert server.call("/v1/chat/completions", body, headers={"Content-Type": "application/json", "Origin": "http://localhost"})[0] == 200
    _, _, headers = server.call("/v1/models", headers={"Origin": "https://evil.example"})
    assert not [h for h in headers if h.lower().startswith("access-control")]


@pytest.mark.parametrize("host, status", [("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:1", 200), ("LOCALHOST:80", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403),
                                          ("localhost.evil", 403), ("", 403)])
def test_host(server, host, status):
    assert status_of(server.exchange(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())) == status


def test_chunked_body_expect_and_pipelining(server):
    data = json.dumps(chat()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(data[i:i + 7]), data[i:i + 7]) for i in range(0, len(data), 7)) + b"0\r\n\r\n"
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert status_of(server.exchange(head + chunks)) == 200
    with contextlib.closing(server.raw(post("/v1/chat/completions", b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: %d" % len(data)))) as s:
        assert s.recv(100).startswith(b"HTTP/1.1 100")
        s.sendall(data)
        assert status_of(s.recv(65536)) == 200
    two = server.exchange(post("/v1/chat/completions", chat()) + b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert two.count(b"HTTP/1.1 200") == 2 and two.index(b"chat.completion") < two.index(b'"status": "ok"')


def test_http_1_0(server):
    """No chunks: the end of the connection is the end of the stream."""
    request = post("/v1/chat/completions", chat(stream=True)).replace(b"HTTP/1.1", b"HTTP/1.0")
    head, _, body = server.exchange(request).partition(b"\r\n\r\n")
    assert status_of(head) == 200 and b"chunked" not in head and body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")


def dechunk(answer):
    """(head, body) of a chunked answer, of which every byte is accounted for."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    text, at, n = bytearray(), 0, 1
    while n:
        begin = rest.index(b"\r\n", at) + 2
        n = int(rest[at:begin - 2], 16)
        assert rest[begin + n:begin + n + 2] == b"\r\n"
        text += rest[begin:begin + n]
        at = begin + n + 2
    assert at == len(rest)
    return head, bytes(text)


def count_tokens(text):
    events = [json.loads(x[6:]) for x in text.decode().split("\n\n") if x.startswith("data: {")]
    assert text.endswith(b"data: [DONE]\n\n")
    return sum(len(e["choices"][0]["logprobs"]["content"]) for e in events if e["choices"][0]["logprobs"])


LONG = {"stream": True, "max_tokens": 300, "n": 2, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}


def test_chunks_of_a_stream_are_well_formed(server):
    assert count_tokens(dechunk(server.exchange(post("/v1/chat/completions", chat(**LONG), "Connection: close")))[1]) == 600


def test_a_slow_reader_gets_all_of_it(ada):
    """Events that the socket takes in parts."""
    server = Server(ada, "--max-unsent-bytes", 64 << 20)
    try:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(30)
        s.connect(("127.0.0.1", server.port))
        s.sendall(post("/v1/chat/completions", chat(**{**LONG, "max_tokens": 1500, "n": 4}), "Connection: close"))
        time.sleep(3)
        answer = bytearray()
        while piece := s.recv(30001):
            answer += piece
        assert len(answer) > 8 << 20 and count_tokens(dechunk(bytes(answer))[1]) == 6000
        s.close()
    finally:
        server.stop()


def test_byte_by_byte(server):
    with contextlib.closing(server.raw()) as s:
        for byte in post("/v1/chat/completions", chat(), "Connection: close"):
            s.sendall(bytes([byte]))
        assert status_of(read_all(s)) == 200


@pytest.mark.parametrize("data", [
    b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n"])
def test_broken_framing_is_refused(server, data):
    answer = server.exchange(data, timeout=3)
    assert not answer or 400 <= status_of(answer) < 506
    assert server.call("/health")[0] == 200


def error_of(answer):
    """(status, error) of an answer whose body is an error of this server's."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head, answer
    return status_of(head), json.loads(body)["error"]


@pytest.mark.parametrize("size", [16384, 17000, 33000, 70000, 200000, 2000000])
@pytest.mark.parametrize("head, status, code", [(b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "uri_too_long"),
                                                (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", 431, "headers_too_large")])
def test_large_heads(server, head, status, code, size):
    with contextlib.closing(server.raw()) as s:
        with contextlib.suppress(ConnectionError):  # the server does not wait for the rest
            s.sendall(head % (b"a" * size))
        got, error = error_of(read_all(s))
    assert got == status and error["code"] == code and "16384 bytes" in error["message"]


def test_a_head_that_fits_and_one_that_trickles(server):
    with contextlib.closing(server.raw()) as s:
        for _ in range(4):  # each counts alone
            s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 15000 + b"\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                s.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 1000 if _ == 0 else b"a" * 1000)
                time.sleep(0.005)
        assert error_of(read_all(s))[0] == 431


def test_large_heads_on_a_unix_socket(ada, tmp_path):
    server = Server(ada, "--uds", tmp_path / "s")
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(tmp_path / "s"))
            with contextlib.suppress(ConnectionError):
                s.sendall(b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert error_of(read_all(s))[0] == 414
    finally:
        server.stop()


def test_sizes(server):
    assert error_of(server.exchange(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"))[0] == 413
    with contextlib.closing(server.raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")) as s:
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                s.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
        answer = read_all(s)
    assert not answer or error_of(answer)[0] == 413
    assert server.call("/health")[0] == 200


# ---- streams and clients that go ---------------------------------------------------------------------------

def stream_begin(server, **fields):
    s = server.raw(post("/v1/chat/completions", chat(stream=True, ignore_eos=True, **fields)))
    got = b""
    while b"data: " not in got:
        got += s.recv(4096)
    return s


def test_gone_clients_free_their_slots(server):
    for stream in (True, False):
        s = server.raw(post("/v1/chat/completions", chat(stream=stream, ignore_eos=True, max_tokens=4000, n=2)))
        assert wait_for(lambda: server.metric("adallm:num_requests_running") == 2)
        s.close()
        assert wait_for(lambda: idle(server), 2)


def test_half_closed_clients_count_as_gone(server):
    s = stream_begin(server, max_tokens=4000)
    s.shutdown(socket.SHUT_WR)
    assert wait_for(lambda: idle(server), 2)
    s.close()


def test_cancel_storm_changes_no_answer(server):
    want = server.call("/v1/chat/completions", chat(max_tokens=30))[1]["choices"][0]["message"]["content"]
    stop = threading.Event()

    def storm():
        while not stop.is_set():
            with contextlib.suppress(OSError):
                s = server.raw(post("/v1/chat/completions", chat("other", stream=True, max_tokens=500, ignore_eos=True)))
                s.recv(300)
                s.close()
    threads = [threading.Thread(target=storm) for _ in range(4)]
    [t.start() for t in threads]
    try:
        for _ in range(10):
            assert server.call("/v1/chat/completions", chat(max_tokens=30))[1]["choices"][0]["message"]["content"] == want
    finally:
        stop.set()
        [t.join() for t in threads]
    assert wait_for(lambda: idle(server))


def test_pings_keep_a_silent_stream_alive(ada):
    server = Server(ada, "--max-num-seqs", "1", "--ping-interval", "0.3")
    try:
        first = stream_begin(server, max_tokens=4000)
        second = server.raw(post("/v1/chat/completions", chat(stream=True)))
        got = b""
        while b": ping\n\n" not in got:
            got += second.recv(4096)
        first.close()
        while b"[DONE]" not in got:
            piece = second.recv(4096)
            assert piece
            got += piece
        second.close()
    finally:
        server.stop()


def test_slow_readers_are_cut(ada):
    server = Server(ada, "--max-unsent-bytes", "4096", "--stall-timeout", "1")
    try:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", server.port))
        s.sendall(post("/v1/chat/completions", chat(stream=True, ignore_eos=True, max_tokens=3500, n=8, logprobs=True, top_logprobs=20)))
        assert wait_for(lambda: server.metric("adallm:clients_stalled_total") == 1, 60)
        assert wait_for(lambda: idle(server), 2)
        s.close()
    finally:
        server.stop()


def test_slow_senders_are_cut(ada):
    server = Server(ada, "--header-timeout", "1", "--body-timeout", "1", "--idle-timeout", "1")
    try:
        for begin in (b"", b"GET / HT", post("/v1/completions", b"x" * 100)[:-50]):
            with contextlib.closing(server.raw(begin)) as s:
                t = time.monotonic()
                for _ in range(40):
                    with contextlib.suppress(OSError):
                        s.send(b"x")
                    time.sleep(0.1)
                    if time.monotonic() - t > 2:
                        break
                answer = read_all(s)
                assert not answer or status_of(answer) in (400, 408)
        assert wait_for(lambda: server.metric("adallm:connections") <= 2)
    finally:
        server.stop()


def test_queue_is_bounded(ada):
    server = Server(ada, "--max-num-seqs", "1", "--max-waiting-requests", "2")
    try:
        held = [stream_begin(server, max_tokens=4000)]
        assert wait_for(lambda: server.metric("adallm:num_requests_running") == 1)  # until then it waits, too
        held += [server.raw(post("/v1/chat/completions", chat(stream=True))) for _ in range(2)]
        assert wait_for(lambda: server.metric("adallm:num_requests_waiting") == 2)
        status, body, headers = server.call("/v1/chat/completions", chat())
        assert status == 429 and body["error"]["code"] == "server_overloaded" and int(headers["Retry-After"]) >= 1
        [s.close() for s in held]
        assert wait_for(lambda: idle(server)) and server.call("/v1/chat/completions", chat())[0] == 200
    finally:
        server.stop()


def test_bodies_together_are_bounded(ada):
    server = Server(ada, "--max-body-bytes", "1024")
    try:
        held = [server.raw(post("/v1/completions", b"x" * 1020)[:-20]) for _ in range(70)]
        assert status_of(read_all(held[-1])) == 503 and server.call("/health")[0] == 200
        [s.close() for s in held]
        assert wait_for(lambda: server.metric("adallm:connections") <= 2)
        assert server.call("/v1/completions", {"prompt": "x"})[0] == 200
    finally:
        server.stop()


def test_deadline_of_a_request(ada):
    server = Server(ada, "--request-timeout", "0.3")
    try:
        events = list(server.events("/v1/chat/completions", chat(stream=True, ignore_eos=True, max_tokens=4000, n=8)))
        assert events[-1] is None and events[-2]["error"]["code"] == "request_timeout"
        status, body, _ = server.call("/v1/chat/completions", chat(ignore_eos=True, max_tokens=4000, n=8))
        assert status == 504 and body["error"]["code"] == "request_timeout"
    finally:
        server.stop()


@pytest.mark.parametrize("data, what", [(b"GET / HTTP/1.1\r\nHost: local", "headers"), (b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{", "body")])
def test_late_requests_are_told_so(ada, data, what):
    server = Server(ada, "--header-timeout", "0.5", "--body-timeout", "0.5")
    try:
        status, error = error_of(server.exchange(data))
        assert status == 408 and what in error["message"]
    finally:
        server.stop()


# ---- who may come in --------------------------------------------------------------------------------------

def wait_for_event(log, event):
    assert wait_for(lambda: f'"event": "{event}"' in log.read_text())


def test_keys_are_read_again(ada, tmp_path):
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text("alpha\n")
    keys.chmod(0o600)
    server = Server(ada, "--api-key-file", keys, log=log)

    def status(key):
        return server.call("/v1/models", headers={"Authorization": "Bearer " + key})[0]
    try:
        stream = stream_begin_with(server, "alpha")
        assert (status("alpha"), status("beta")) == (200, 401)
        keys.write_text("beta\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for_event(log, "keys_read")
        assert (status("alpha"), status("beta")) == (401, 200)
        keys.write_text("# nobody\n")
        server.process.send_signal(signal.SIGHUP)
        wait_for_event(log, "keys_kept")
        assert (status("alpha"), status("beta")) == (401, 200)
        assert read_all(stream).rstrip(b"0\r\n").endswith(b"data: [DONE]")  # who was let in stays in
    finally:
        server.stop()


def stream_begin_with(server, key):
    s = server.raw(post("/v1/chat/completions", chat(stream=True, ignore_eos=True, max_tokens=1500), "Connection: close", "Authorization: Bearer " + key))
    assert b"200" in s.recv(100)
    return s


def test_a_hangup_without_keys_ends_the_server(ada):
    """As of a terminal that is closed."""
    server = Server(ada)
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(5) == -signal.SIGHUP
    server.end()


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-mine"}


def allowed(server, origin, path="/v1/chat/completions", method="OPTIONS"):
    status, _, headers = server.call(path, method=method, headers={"Origin": origin, **(PREFLIGHT if method == "OPTIONS" else {})})
    return status, headers["Access-Control-Allow-Origin"], headers


def test_pages_of_other_origins(ada, server):
    assert allowed(server, "https://a.example")[:2] == (400, None)
    assert allowed(server, "https://a.example", "/v1/models", "GET")[:2] == (200, None)
    some = Server(ada, "--allowed-origins", "https://a.example", "--allowed-origins", '["https://b.example:8443", "null"]')
    all = Server(ada, env={"ADALLM_ALLOWED_ORIGINS": "*"})
    try:
        for origin in ("https://a.example", "https://b.example:8443", "null"):
            status, got, headers = allowed(some, origin)
            assert status == 200 and got == origin and headers["Vary"] == "Origin"
            assert headers["Access-Control-Allow-Headers"] == "authorization, x-mine" and "POST" in headers["Access-Control-Allow-Methods"]
            assert "Access-Control-Allow-Credentials" not in headers
            status, got, headers = allowed(some, origin, "/v1/models", "GET")
            assert status == 200 and got == origin and "X-Request-Id" in headers["Access-Control-Expose-Headers"]
            assert some.call("/v1/chat/completions", chat(), headers={"Origin": origin, "Content-Type": "text/plain"})[0] == 200
        for origin in ("https://a.example.evil", "http://a.example", "https://a.example:444", "https://b.example"):
            assert allowed(some, origin)[:2] == (400, None) and allowed(some, origin, "/v1/models", "GET")[1] is None
        assert allowed(all, "https://any.example")[:2] == (200, "*") and allowed(all, "https://any.example", "/nowhere", "GET")[:2] == (404, "*")
        with contextlib.closing(all.raw(post("/v1/chat/completions", chat(stream=True), "Origin: https://any.example", "Content-Type: application/json", "Connection: close"))) as s:
            assert b"Access-Control-Allow-Origin: *" in read_all(s)
    finally:
        some.stop()
        all.stop()
    for bad in ("a.example", "https://a.example/path", '["https://a.example", 5]', "[", "https://*.example"):
        refused(ada, "--allowed-origins", bad, words="--allowed-origins", code=2)


def test_keys(ada, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# clients\nalpha-key\nbeta-key\n")
    keys.chmod(0o600)
    server = Server(ada, "--api-key-file", keys)
    try:
        for path in ("/v1/models", "/metrics", "/", "/stats", "/props", "/tokenizer_info", "/version", "/nowhere"):
            status, body, headers = server.call(path)
            assert status == 401 and headers["WWW-Authenticate"] == "Bearer" and body["error"]["code"] == "invalid_api_key", path
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/tokenize", "/detokenize", "/v1/messages/count_tokens"):
            assert server.call(path, {})[0] == 401, path
        assert server.call("/health")[0] == server.call("/ready")[0] == 200
        for headers in ({"Authorization": "Bearer alpha-key"}, {"Authorization": "bearer  beta-key"}, {"x-api-key": "beta-key"}):
            assert server.call("/v1/models", headers=headers)[0] == 200
        for headers in ({"Authorization": "Bearer alpha-ke"}, {"Authorization": "Bearer alpha-key2"}, {"x-api-key": ""}, {"Authorization": "Basic alpha-key"}):
            assert server.call("/v1/models", headers=headers)[0] == 401
    finally:
        server.stop()
    keys.chmod(0o644)
    refused(ada, "--api-key-file", keys, words="chmod 600", code=2)
    keys.chmod(0o600)
    keys.write_text("\n")
    refused(ada, "--api-key-file", keys, words="holds no key", code=2)


def refused(ada, *arguments, words, code=1, **env):
    done = subprocess.run([BUILD / "adallm-rt", ada, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=60, env=dict(os.environ, **env))
    assert done.returncode == code and words in done.stderr, done.stderr


def test_usage(ada):
    refused(ada, "--host", "0.0.0.0", words="--api-key-file", code=2)
    refused(ada, "--port", "70000", words="--port", code=2)
    refused(ada, "--kv-cache-dtype", "fp16", words="fp8", code=2)
    refused(ada, "--tensor-parallel-size", "2", words="this artifact is for 1", code=2)
    refused(ada, "--max-model-len", "100000", words="4096", code=2)
    refused(ada, "--nonsense", words="unknown option", code=2)
    refused("/nonexistent.ada", words="/nonexistent.ada")
    refused(ada, words="ADALLM_PORT=x", code=2, ADALLM_PORT="x")


def test_environment_and_names(ada):
    server = Server(ada, "--served-model-name", "one", "--served-model-name", "two", env={"ADALLM_MAX_MODEL_LEN": "64", "ADALLM_MAX_NUM_SEQS": "3"}, serve_verb=True)
    try:
        models = server.call("/v1/models")[1]["data"]
        assert [m["id"] for m in models] == ["one", "two"] and models[0]["max_model_len"] == 64
        assert server.call("/stats")[1]["slots"] == 3
        assert server.call("/v1/completions", {"model": "two", "prompt": "x"})[1]["model"] == "two"
        assert server.call("/v1/completions", {"model": "qwen3", "prompt": "x"})[0] == 404
    finally:
        server.stop()


def test_unix_socket(ada, tmp_path):
    path = tmp_path / "s"
    server = Server(ada, "--uds", path)
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(path))
        s.sendall(post("/v1/chat/completions", chat(), "Connection: close", host="anything"))
        assert status_of(read_all(s)) == 200
        refused(ada, "--uds", path, words="another server", code=2)
    finally:
        server.stop()
    assert not path.exists()


def test_logs_hold_no_text(ada, tmp_path):
    server = Server(ada, log=tmp_path / "log")
    try:
        server.call("/v1/chat/completions", chat("sesame"), headers={"Authorization": "Bearer open-key"})
        server.call("/v1/chat/completions", chat("sesame", nonsense_field=1))
        server.call("/nowhere%0a%22sesame2")
    finally:
        server.stop()
    lines = (tmp_path / "log").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert not any("sesame" in line and "sesame2" not in line or "open-key" in line for line in lines)
    done = [e for e in events if e["event"] == "request"]
    assert done[0]["path"] == "/chat/completions" and done[0]["tokens"] == 6 and done[0]["status"] == 200 and done[0]["finish"] == "length"
    assert [e for e in events if e["event"] == "unknown_field"][0]["message"].endswith("nonsense_field")
    assert events[-1]["event"] == "stopped"


# ---- the end ----------------------------------------------------------------------------------------------

def test_drain(ada):
    server = Server(ada)
    s = stream_begin(server, max_tokens=1500)
    kept = server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"200" in kept.recv(4096)
    server.process.send_signal(signal.SIGTERM)
    assert wait_for(lambda: server.call("/ready")[0] == 503, 2)
    assert server.call("/health")[1]["status"] == "draining"
    status, body, headers = server.call("/v1/chat/completions", chat())
    assert status == 503 and body["error"]["code"] == "draining" and headers["Retry-After"]
    assert read_all(s).rstrip(b"0\r\n").endswith(b"data: [DONE]")
    server.stop()


@pytest.mark.parametrize("how", ["second signal", "deadline"])
def test_a_stream_cut_by_the_end_says_so(ada, how):
    server = Server(ada, "--drain-timeout", "0.3" if how == "deadline" else "60")
    s = stream_begin(server, max_tokens=4000, n=4)
    server.process.send_signal(signal.SIGTERM)
    if how == "second signal":
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    got = read_all(s)
    assert b'"code": "draining"' in got and b"data: [DONE]" in got and time.monotonic() - begin < 5
    server.stop()


def test_gemma_has_no_tools(gemma):
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    status, body, _ = gemma.call("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "tools": [tool]})
    assert status == 400 and body["error"]["param"] == "tools" and "knows no tools" in body["error"]["message"]
    status, body, _ = gemma.call("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0})
    assert status == 200 and body["choices"][0]["message"]["content"]
    status, body, _ = gemma.call("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}]})
    assert status == 400 and "alternate" in body["error"]["message"]


def test_the_dashboard_asks_for_what_is_there(server):
    names = set(re.findall(r"adallm:[a-z0-9_]+", (ROOT / "contrib" / "grafana.json").read_text()))
    text = server.call("/metrics")[1]
    assert len(names) > 15 and not [n for n in names if n + "{" not in text]


def test_ready_is_told_to_the_supervisor(ada, tmp_path):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(path))
        s.settimeout(10)
        server = Server(ada, env={"NOTIFY_SOCKET": str(path)})
        try:
            assert s.recv(100) == b"READY=1"
            server.process.send_signal(signal.SIGTERM)
            assert s.recv(100) == b"STOPPING=1"
        finally:
            server.stop()


# ---- what the engine does, seen from outside -----------------------------------------------------------------

def test_prefixes_are_cached_per_tenant(server):
    body = chat("one two three four " * 12, max_tokens=5)
    first, again = (server.call("/v1/chat/completions", body)[1] for _ in range(2))
    assert again["choices"] == first["choices"] and again["usage"]["prompt_tokens_details"]["cached_tokens"] > 16
    salted = server.call("/v1/chat/completions", {**body, "cache_salt": "mine"})[1]
    assert salted["usage"]["prompt_tokens_details"]["cached_tokens"] == 0 and salted["choices"] == first["choices"]


def test_guesses_change_nothing(ada, server):
    guessing = Server(ada, "--speculate", "ngram", "--num-speculative-tokens", "3")
    try:
        for fields in ({"temperature": 0}, {"temperature": 1, "seed": 5}, {"temperature": 0, "structured_outputs": {"regex": "(ab|cd){30,40}"}}, {"temperature": 0, "n": 2},
                       {"temperature": 0, "frequency_penalty": 1}):
            body = {"prompt": "a b c a b c a b", "max_tokens": 120, "ignore_eos": "structured_outputs" not in fields, **fields}
            assert guessing.call("/v1/completions", body)[1]["choices"] == server.call("/v1/completions", body)[1]["choices"], fields
        assert guessing.metric("vllm:spec_decode_num_draft_tokens_total") > 0
    finally:
        guessing.stop()
