"""The official anthropic client, unchanged."""
import anthropic
import pytest

PROMPT = [{"role": "user", "content": "Hi"}]
GREEDY = {"extra_body": {"temperature": 0}}
TOOL = {"name": "weather", "description": "x", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as c:
        yield c


def test_message(client):
    r = client.messages.create(model="qwen3", max_tokens=8, system="Be brief.", messages=PROMPT, **GREEDY)
    assert r.type == "message" and r.stop_reason == "max_tokens" and r.content[0].type == "text" and r.usage.output_tokens == 8
    blocks = [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]
    again = client.messages.create(model="qwen3", max_tokens=8, system=[{"type": "text", "text": "Be brief."}],
                                   messages=[{"role": "user", "content": blocks}], **GREEDY)
    assert again.content[0].text == r.content[0].text


def test_stream(client):
    whole = client.messages.create(model="qwen3", max_tokens=30, messages=PROMPT, **GREEDY)
    with client.messages.stream(model="qwen3", max_tokens=30, messages=PROMPT, **GREEDY) as s:
        text = "".join(s.text_stream)
        final = s.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 30


def test_stop_sequence(client):
    whole = client.messages.create(model="qwen3", max_tokens=8, messages=PROMPT, **GREEDY).content[0].text
    r = client.messages.create(model="qwen3", max_tokens=8, messages=PROMPT, stop_sequences=[whole[4:7]], **GREEDY)
    assert r.stop_reason == "stop_sequence" and r.stop_sequence == whole[4:7]


def test_tools_in_history(client):
    r = client.messages.create(model="qwen3", max_tokens=4, tools=[TOOL], messages=[
        *PROMPT, {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "x"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "sunny"}, {"type": "text", "text": "so?"}]}])
    assert r.usage.input_tokens + r.usage.cache_read_input_tokens > 50


def test_count_tokens(client):
    n = client.messages.count_tokens(model="qwen3", messages=PROMPT).input_tokens
    u = client.messages.create(model="qwen3", max_tokens=1, messages=PROMPT, **GREEDY).usage
    assert n == u.input_tokens + u.cache_read_input_tokens


def test_errors(client):
    with pytest.raises(anthropic.BadRequestError) as e:
        client.messages.create(model="qwen3", max_tokens=8, messages=[])
    assert e.value.body["error"]["type"] == "invalid_request_error" and e.value.body["request_id"]
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude", max_tokens=8, messages=PROMPT, **GREEDY)
