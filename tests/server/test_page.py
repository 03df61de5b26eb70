"""The page at / in a headless browser, where Chromium is installed: a conversation, and the batch while it runs."""
import json
import os
import shutil
import subprocess
import time

import pytest
from test_http import stream_begin

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One tab, driven through the browser's pipe: messages of JSON, each ended by a NUL."""

    def __init__(self, folder):
        (self.theirs_in, self.mine_out), (self.mine_in, self.theirs_out) = os.pipe(), os.pipe()
        script = f'exec 3<&{self.theirs_in} 4>&{self.theirs_out}; exec "$@"'
        self.process = subprocess.Popen(["bash", "-c", script, "browser", BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
                                         "--remote-debugging-pipe", "about:blank"], pass_fds=(self.theirs_in, self.theirs_out), stderr=subprocess.DEVNULL)
        os.close(self.theirs_in), os.close(self.theirs_out)
        self.held, self.count, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters, **({"sessionId": self.session} if self.session else {})}
        os.write(self.mine_out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.held:
                piece = os.read(self.mine_in, 65536)
                assert piece, "the browser is gone"
                self.held += piece
            answer, self.held = self.held.split(b"\0", 1)
            answer = json.loads(answer)
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def ask(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in r, r
        return r["result"].get("value")

    def wait(self, expression, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.ask(expression):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never: {expression}; the page says {self.ask('document.body.innerText')!r}")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.mine_out), os.close(self.mine_in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    b = Browser(tmp_path_factory.mktemp("browser"))
    yield b
    b.close()


@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_a_conversation(server, browser):
    browser.call("Page.navigate", url=server.url + "/")
    browser.wait("document.getElementById('model') && document.getElementById('model').textContent === 'qwen3'")
    browser.wait("document.getElementById('state').textContent.startsWith('ok')")
    assert browser.ask("document.querySelectorAll('#batch i').length") == 16
    browser.ask("document.getElementById('text').value = 'Hi <b>there</b>'; document.getElementById('ask').requestSubmit()")
    assert browser.wait("document.querySelector('.user') && document.querySelector('.user').textContent") == "Hi <b>there</b>"
    browser.wait("document.querySelector('.assistant') && document.querySelector('.assistant').textContent.length > 5")
    if browser.ask("document.getElementById('send').textContent") == "Stop":
        browser.ask("document.getElementById('ask').requestSubmit()")  # stops
    browser.wait("document.getElementById('send').textContent === 'Send'")
    assert not browser.ask("document.querySelectorAll('.error').length")
    others = [stream_begin(server, max_tokens=4000, n=2) for _ in range(2)]  # the batch, live
    browser.wait("document.querySelectorAll('#batch .decode, #batch .prefill').length === 4")
    [s.close() for s in others]
    browser.wait("document.getElementById('state').textContent.includes(' 0 of 16 run')")
