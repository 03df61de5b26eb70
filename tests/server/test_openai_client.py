"""The official openai client, unchanged."""
import openai
import pytest

PROMPT = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as c:
        yield c


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == ["qwen3"] and models[0].max_model_len == 4096
    assert client.models.retrieve("qwen3").id == "qwen3"
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("a/b")
    assert e.value.code == "model_not_found"


def test_chat(client):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=8, temperature=0)
    assert r.object == "chat.completion" and r.choices[0].finish_reason == "length" and r.choices[0].message.content
    assert r.usage.completion_tokens == 8 and r.usage.total_tokens == r.usage.prompt_tokens + 8
    assert r.choices[0].message.role == "assistant" and r.choices[0].message.tool_calls is None


def test_stream_is_the_same_text(client):
    whole = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=40, temperature=0)
    chunks = list(client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=40, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 40
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert all(c.usage is None for c in chunks[:-1])


def test_several_answers(client):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=6, n=3, seed=5, temperature=1)
    again = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=6, n=3, seed=5, temperature=1)
    assert [c.index for c in r.choices] == [0, 1, 2] and r.usage.completion_tokens == 18
    assert [c.message.content for c in r.choices] == [c.message.content for c in again.choices]
    assert len({c.message.content for c in r.choices}) > 1
    greedy = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=6, n=2, temperature=0)
    assert greedy.choices[0].message.content == greedy.choices[1].message.content


def test_logprobs(client):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3)
    content = r.choices[0].logprobs.content
    assert len(content) == 5 and all(len(t.top_logprobs) == 3 for t in content)
    for t in content:
        assert t.logprob == max(x.logprob for x in t.top_logprobs) <= 0
        assert b"".join([bytes(t.bytes)]) is not None and t.top_logprobs[0].token == t.token
    streamed = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3, stream=True)
    tokens = [t for c in streamed if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [(t.token, t.logprob) for t in tokens] == [(t.token, t.logprob) for t in content]


def test_stop(client):
    whole = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=8, temperature=0).choices[0].message.content
    stop = whole[4:7]
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=8, temperature=0, stop=[stop])
    assert r.choices[0].finish_reason == "stop" and r.choices[0].message.content == whole[:whole.index(stop)]
    assert r.choices[0].stop_reason == stop
    kept = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=8, temperature=0, stop=stop, extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].message.content == whole[:whole.index(stop)] + stop


def test_bias_and_stop_ids(client):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=4, temperature=0, logit_bias={"65": 100},
                                       extra_body={"return_token_ids": True})
    assert r.choices[0].token_ids == [65] * 4
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=4, temperature=0, logit_bias={"65": 100},
                                       extra_body={"stop_token_ids": [65]})
    assert r.choices[0].finish_reason == "stop" and r.choices[0].stop_reason == 65 and r.choices[0].message.content == ""


@pytest.mark.parametrize("prompt", ["Hi there", ["Hi", "Ho"], [72, 105], [[72, 105], [72]]])
def test_four_kinds_of_prompt(client, prompt):
    r = client.completions.create(model="qwen3", prompt=prompt, max_tokens=5, temperature=0)
    count = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert [c.index for c in r.choices] == list(range(count)) and all(c.text for c in r.choices)
    assert r.usage.completion_tokens == 5 * count


def test_echo_and_logprobs(client):
    """What lm-eval sends, and what it reads."""
    ids = [72, 105, 72, 105, 73]
    r = client.completions.create(model="qwen3", prompt=ids, max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1234)
    l = r.choices[0].logprobs
    assert len(l.tokens) == len(l.token_logprobs) == len(l.top_logprobs) == len(l.text_offset) == 6
    assert l.token_logprobs[0] is None and l.top_logprobs[0] is None and all(x < 0 for x in l.token_logprobs[1:])
    assert r.choices[0].text == "".join(l.tokens) and l.text_offset == [sum(map(len, l.tokens[:i])) for i in range(6)]
    assert max(l.top_logprobs[-1].values()) == l.token_logprobs[-1]  # greedy
    none = client.completions.create(model="qwen3", prompt=ids, max_tokens=0, temperature=0, logprobs=1, echo=True)
    assert none.choices[0].logprobs.token_logprobs == l.token_logprobs[:5] and none.usage.completion_tokens == 0
    assert none.choices[0].finish_reason == "length"


def test_completion_stream(client):
    whole = client.completions.create(model="qwen3", prompt="Hi", max_tokens=12, temperature=0, echo=True, logprobs=2)
    parts = list(client.completions.create(model="qwen3", prompt="Hi", max_tokens=12, temperature=0, echo=True, logprobs=2, stream=True))
    assert "".join(p.choices[0].text for p in parts) == whole.choices[0].text
    tokens = [x for p in parts if p.choices[0].logprobs for x in p.choices[0].logprobs.token_logprobs]
    assert tokens == whole.choices[0].logprobs.token_logprobs
    offsets = [x for p in parts if p.choices[0].logprobs for x in p.choices[0].logprobs.text_offset]
    assert offsets == whole.choices[0].logprobs.text_offset


def test_tools_are_taken(client):
    for tools in ([TOOL], []):
        r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=4, temperature=0, tools=tools)
        assert r.choices[0].finish_reason == "length"
    history = [*PROMPT, {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
               {"role": "tool", "tool_call_id": "a", "content": "sunny"}]
    assert client.chat.completions.create(model="qwen3", messages=history, max_tokens=4, tools=[TOOL]).usage.prompt_tokens > 50


@pytest.mark.parametrize("fields, param", [
    ({"temperature": 3}, "temperature"), ({"top_p": -1}, "top_p"), ({"n": 0}, "n"), ({"n": 100000}, "n"), ({"max_tokens": 0}, "max_tokens"),
    ({"stop": ""}, "stop"), ({"stop": ["a"] * 17}, "stop"), ({"logit_bias": {"99999": 1}}, "logit_bias"), ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"top_logprobs": 2}, "top_logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"), ({"seed": 2**70}, "seed"),
    ({"stream_options": {"include_usage": True}}, "stream_options"), ({"presence_penalty": 2.5}, "presence_penalty"),
    ({"messages": []}, "messages"), ({"messages": [{"role": "x", "content": ""}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0].content"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]"), ({"tool_choice": "required"}, "tool_choice"),
    ({"modalities": ["audio"]}, "modalities"), ({"response_format": {"type": "x"}}, "response_format.type"),
])
def test_refusals_name_the_field(client, fields, param):
    body = {"model": "qwen3", "messages": PROMPT, **fields}
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(**{k: v for k, v in body.items() if k in ("model", "messages")}, extra_body=fields)
    assert e.value.param == param and e.value.type == "invalid_request_error" and isinstance(e.value.code, str)


def test_context(client):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=4096)
    assert e.value.code == "context_length_exceeded" and "This model's maximum context length is 4096 tokens" in e.value.message
    assert e.value.body["n_ctx"] == 4096


def test_wrong_model(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="gpt-4", messages=PROMPT)
    assert e.value.code == "model_not_found" and e.value.param == "model"


def test_responses(client):
    r = client.responses.create(model="qwen3", input="Hi", max_output_tokens=8, temperature=0)
    assert r.status == "incomplete" and r.incomplete_details.reason == "max_output_tokens" and r.output_text
    events = list(client.responses.create(model="qwen3", input=[{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
                                          max_output_tokens=8, temperature=0, stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == r.output_text == events[-1].response.output_text
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="qwen3", input="Hi", previous_response_id="resp_1")
