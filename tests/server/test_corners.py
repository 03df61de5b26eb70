"""Every field with every corner value: 200 or a 400 that names it, never anything else."""
import http.client
import itertools
import json
import random

VALUES = [None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 2**31, 2**63, -2**63 - 1, "", "x", "1", [], [1], [""], ["x"], [None], [[]], {}, {"1": 1}, {"a": []}, "\u00e9" * 300,
          [1] * 600, {"type": "text"}, "none", "auto", "required"]
CHAT = ["model", "messages", "max_tokens", "max_completion_tokens", "n_predict", "temperature", "top_p", "top_k", "min_p", "n", "seed", "stop", "stop_token_ids",
        "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "prompt_logprobs", "stream", "stream_options", "response_format",
        "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema", "grammar", "tools", "tool_choice", "parallel_tool_calls",
        "reasoning_effort", "ignore_eos", "min_tokens", "include_stop_str_in_output", "skip_special_tokens", "add_generation_prompt", "continue_final_message",
        "chat_template_kwargs", "chat_template", "return_token_ids", "priority", "cache_salt", "user", "metadata", "modalities", "audio", "functions", "function_call",
        "prediction", "web_search_options", "prompt_embeds", "use_beam_search", "length_penalty", "service_tier", "store", "nonsense"]
COMPLETION = ["prompt", "max_tokens", "echo", "logprobs", "suffix", "best_of", "n", "add_special_tokens"]
MESSAGES = ["messages", "system", "max_tokens", "stop_sequences", "tools", "tool_choice", "thinking", "stream", "temperature"]
RESPONSES = ["input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "previous_response_id", "background", "stream", "top_logprobs"]
BASES = {"/v1/chat/completions": ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, CHAT), "/v1/completions": ({"prompt": "x", "max_tokens": 1}, COMPLETION + CHAT[5:20]),
         "/v1/messages": ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, MESSAGES), "/v1/responses": ({"input": "x", "max_output_tokens": 1}, RESPONSES)}


class Client:
    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.count = 0

    def check(self, path, body):
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = self.connection.getresponse()
        text = r.read().decode()
        self.count += 1
        assert r.status in (200, 400, 404), (path, body, r.status, text)
        if r.status != 200:
            error = json.loads(text)["error"]
            assert error["message"] and error["type"], (path, body, text)
        elif text.startswith("{"):
            json.loads(text)
        else:
            assert "data: [DONE]" in text or "message_stop" in text or "response." in text, (path, body, text[-300:])


def bounded(body):
    """Keeps answers short: what is tested is the door."""
    return body if any(k.startswith("max") or k == "n_predict" for k in body) else {**body, "max_tokens": 1}


def test_each_field(server):
    client = Client(server)
    for path, (base, fields) in BASES.items():
        for field, value in itertools.product(fields, VALUES):
            body = {**base, field: value}
            if field in ("max_tokens", "max_completion_tokens", "n_predict", "max_output_tokens") and value in (None, -1):
                continue  # the whole context: right, and slow
            client.check(path, body)
    assert client.count > 2500
    assert server.call("/health")[0] == 200


def test_pairs_of_fields(server):
    client, dice = Client(server), random.Random(5)
    for _ in range(1500):
        path, (base, fields) = dice.choice(list(BASES.items()))
        extra = {f: dice.choice(VALUES) for f in dice.sample(fields, dice.randint(2, 4)) if "max" not in f and f != "n_predict"}
        client.check(path, bounded({**base, **extra}))
    assert server.metric("adallm:num_requests_running") == 0
