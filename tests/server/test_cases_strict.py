"""No check of cases/ is true of a server that answers everything wrongly."""
import http.server
import threading

import pytest
from cases import CASES
from cases.talk import Talk
from serving import Server

ANSWERS = {"an empty 500": (500, "text/plain", b""), "{}": (200, "application/json", b"{}"), "an empty stream": (200, "text/event-stream", b"data: [DONE]\n\n")}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length if length < 1 << 20 else 0)  # who announces more sends none
        status, kind, body = self.server.said
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.answered += 1

    do_GET = do_HEAD = do_POST = do_OPTIONS = do_TRACE = answer

    def log_message(self, *arguments):
        pass


class Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    answered = 0

    def handle_error(self, request, address):  # a client that has gone away
        pass


class Process:
    """Of a server that no signal ends."""
    def send_signal(self, signal):
        pass

    def wait(self, timeout):
        raise TimeoutError


class WrongServer(Server):
    def __init__(self, said):
        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.listener.said = said
        self.port = self.listener.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = Process()
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self, code=0):
        self.listener.shutdown()
        self.listener.server_close()

    def end(self):
        pass


class Impatient(Talk):
    def becomes(self, condition, seconds=10):
        return condition()


@pytest.mark.parametrize("said", ANSWERS.values(), ids=ANSWERS.keys())
def test_no_check_is_true_of_wrong_answers(said, tmp_path):
    server = WrongServer(said)
    talk = Impatient(server, lambda *a: server, lambda *a: server, server, tmp_path / "keys")
    wrong = [c.id for c in CASES if holds(c, talk)]
    server.stop()
    assert not wrong
    assert server.listener.answered > len(CASES) / 2, "the checks have not been put to it"


def holds(case, talk):
    try:
        return bool(case.check(talk))
    except Exception:  # noqa: BLE001  an answer of another shape
        return False
