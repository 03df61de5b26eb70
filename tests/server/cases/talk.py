"""Talk: requests to a running server, and answers that are easy to ask about."""
import concurrent.futures
import json
import time

from serving import post

KEY = "sk-this-is-the-secret-key"
USER = {"role": "user", "content": "What is the best book?"}
SYSTEM = {"role": "system", "content": "Book"}


class Answer:
    """status, headers, body (parsed where it is JSON), raw; of a stream also events and done ([DONE] came)."""

    def __init__(self, status, body, headers, raw):
        self.status, self.body, self.headers, self.raw = status, body, headers, raw
        lines = [line[6:] for line in raw.split("\n") if line.startswith("data: ")]
        self.done = bool(lines) and lines[-1] == "[DONE]"
        self.events = [json.loads(line) for line in lines if line != "[DONE]"]

    def __getitem__(self, key):
        return self.body[key]

    @property
    def ok(self):
        return self.status == 200

    @property
    def answered(self):
        """Went well, with an answer of one of the APIs in it."""
        return self.ok and isinstance(self.body, dict) and bool({"choices", "content", "output"} & set(self.body))

    @property
    def streamed(self):
        """A stream that went well and brought something."""
        return self.ok and bool(self.events)

    @property
    def error(self):
        return self.body["error"] if isinstance(self.body, dict) and "error" in self.body else {}

    @property
    def choices(self):
        return self.body["choices"]

    @property
    def choice(self):
        return self.body["choices"][0]

    @property
    def message(self):
        return self.choice["message"]

    @property
    def call(self):
        return self.message["tool_calls"][0]["function"]

    @property
    def usage(self):
        return self.body["usage"]

    @property
    def finish(self):
        return self.choice["finish_reason"]

    @property
    def text(self):
        """Of a chat, a completion, a message or a response; of a stream, of its first choice."""
        if self.events:
            return self.texts().get(0, "")
        if "choices" in self.body:
            return self.message["content"] if "message" in self.choice else self.choice["text"]
        if "output" in self.body:
            return "".join(part["text"] for item in self.body["output"] if item["type"] == "message" for part in item["content"])
        return "".join(block["text"] for block in self.body["content"] if block["type"] == "text")

    def texts(self):
        """{choice: text} of a stream."""
        out = {}
        for event in self.events:
            for choice in event.get("choices", []):
                piece = choice["delta"].get("content") if "delta" in choice else choice["text"]
                out[choice["index"]] = out.get(choice["index"], "") + (piece or "")
            if event.get("type") == "response.output_text.delta":
                out[0] = out.get(0, "") + event["delta"]
            elif event.get("type") == "content_block_delta":
                out[0] = out.get(0, "") + event["delta"].get("text", "")
        return out

    def deltas(self):
        """The first choice of every event of a chat's or completion's stream that has one."""
        return [event["choices"][0] for event in self.events if event["choices"]]

    def finishes(self):
        return [choice["finish_reason"] for event in self.events for choice in event.get("choices", []) if choice["finish_reason"]]

    def types(self):
        return [event["type"] for event in self.events]

    def refused(self, *words, status=400):
        """An error of the client's, told in JSON, whose message has these words."""
        return self.status == status and isinstance(self.error.get("message"), str) and all(str(w) in self.error["message"] for w in words)


class Talk:
    def __init__(self, server, start, begin, keyed, keys):
        self.server, self.start, self.begin = server, start, begin  # start(arguments): another, kept; begin(arguments): one of the case's own
        self.keyed, self.keys = keyed, keys  # one that wants the key KEY; the file of its keys
        self.said = []  # of the case that runs

    def taking(self, *arguments):
        """A server with an option of theirs; ValueError: it knows none of that name."""
        try:
            return self.start(*arguments)
        except AssertionError as e:
            raise ValueError(arguments) from e

    def call(self, path, body=None, method=None, headers=None, server=None):
        status, got, headers = (server or self.server).call(path, body, method, headers)
        raw = got if isinstance(got, str) else json.dumps(got)
        self.said.append((path, body, status, raw[:600]))
        return Answer(status, got, headers, raw)

    def get(self, path, **headers):
        return self.call(path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def chat(self, content=None, **fields):
        messages = [SYSTEM, USER] if content is None else [{"role": "user", "content": content}]
        return self.call("/v1/chat/completions", {"messages": messages, "temperature": 0, "max_tokens": 8, **fields})

    def plain(self, content=None, **fields):
        """A chat that does not think: rules hold for all that it says."""
        return self.chat(content, **{"max_tokens": 60, "chat_template_kwargs": {"enable_thinking": False}, **fields})

    def complete(self, prompt="I believe the meaning of life is", **fields):
        return self.call("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 8, **fields})

    def message(self, content="Say hello", **fields):
        return self.call("/v1/messages", {"messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8, **fields})

    def respond(self, text="Say hello", **fields):
        return self.call("/v1/responses", {"input": text, "temperature": 0, "max_output_tokens": 8, **fields})

    def ids(self, text):
        return self.call("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    def same(self, *answers):
        """All went well and say the same text."""
        return all(a.ok for a in answers) and len({a.text for a in answers}) == 1

    def together(self, *calls):
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            return [f.result() for f in [pool.submit(c) for c in calls]]

    def hang_up(self, path, body):
        """Asks, waits until the answer begins, and goes away."""
        s = self.server.raw(post(path, body))
        s.recv(100)
        s.close()

    def exchange(self, data):
        text = self.server.exchange(data).decode(errors="replace")
        head, _, body = text.partition("\r\n\r\n")
        self.said.append((data[:80], None, head.split("\r\n")[0], body[:300]))
        return Answer(int(head.split(" ")[1]), json.loads(body) if body.startswith("{") else body, {}, body)

    def becomes(self, condition, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def is_idle(self):
        return self.server.metric("vllm:num_requests_running") == 0 == self.server.metric("vllm:num_requests_waiting")


