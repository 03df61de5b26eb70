"""Structured output and calls of tools: a model of random weights that must obey."""
import json
import re

import anthropic
import jsonschema
import openai
import pytest
from serving import chat

PROMPT = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "size": {"type": "integer", "minimum": 0, "maximum": 99},
                                           "kind": {"enum": ["a", "b"]}}, "required": ["name", "size", "kind"], "additionalProperties": False}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 10}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
              "required": ["city", "days"], "additionalProperties": False}
TOOLS = [{"type": "function", "function": {"name": n, "description": n, "parameters": PARAMETERS}} for n in ("weather", "forecast")]
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as c:
        yield c


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stream", [False, True])
def test_schema(client, seed, stream):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=300, seed=seed, stream=stream, extra_body=NO_THINKING,
                                       response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}})
    if stream:
        chunks = list(r)
        text, finish = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        text, finish = r.choices[0].message.content, r.choices[0].finish_reason
    assert finish == "stop"
    jsonschema.validate(json.loads(text), SCHEMA)


def test_json_object_regex_choice_grammar(client):
    def ask(**extra):
        r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=60, seed=1, extra_body={**NO_THINKING, **extra})
        return r.choices[0].message.content, r.choices[0].finish_reason
    text, finish = ask(response_format={"type": "json_object"})
    assert text.startswith("{") and (finish == "length" or isinstance(json.loads(text), dict))
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2}", ask(structured_outputs={"regex": "[0-9]{3}-[a-f]{2}"})[0])
    assert ask(structured_outputs={"choice": ["yes", "no"]})[0] in ("yes", "no")
    assert ask(grammar='root ::= "ab" ("c" | "d")')[0] in ("abc", "abd")


def test_several_answers_each_with_its_own_rule(client):
    r = client.completions.create(model="qwen3", prompt=["Hi", "Ho"], n=3, max_tokens=60, seed=3, extra_body={"structured_outputs": {"regex": "[a-z]{2,9}!"}})
    assert len(r.choices) == 6 and all(re.fullmatch("[a-z]{2,9}!", c.text) for c in r.choices)


@pytest.mark.parametrize("schema, words", [({"type": "object", "contentEncoding": "base64"}, "contentEncoding"), ({"type": "nonsense"}, "type"),
                                           ({"$ref": "#/nowhere"}, "$ref")])
def test_bad_schemas_are_refused_with_their_place(client, schema, words):
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="qwen3", messages=PROMPT, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert e.value.param == "response_format.json_schema.schema" and words in e.value.message


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "forecast"}}])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_demanded_calls(client, choice, stream, seed):
    r = client.chat.completions.create(model="qwen3", messages=PROMPT, max_tokens=500, seed=seed, tools=TOOLS, tool_choice=choice, stream=stream,
                                       parallel_tool_calls=False, extra_body=NO_THINKING)
    if stream:
        chunks = list(r)
        calls = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
        assert calls[0].id and calls[0].type == "function" and all(d.index == 0 and not d.id for d in calls[1:])
        name, arguments, finish = calls[0].function.name, "".join(d.function.arguments for d in calls), chunks[-1].choices[0].finish_reason
        assert len(calls) > 1  # by fragment, of which a busy machine joins some
    else:
        m = r.choices[0].message
        assert m.content is None and len(m.tool_calls) == 1
        name, arguments, finish = m.tool_calls[0].function.name, m.tool_calls[0].function.arguments, r.choices[0].finish_reason
    assert finish == "tool_calls" and name in ("weather", "forecast")
    assert isinstance(choice, str) or name == "forecast"
    jsonschema.validate(json.loads(arguments), PARAMETERS)


def test_call_through_anthropic(server):
    tools = [{"name": t["function"]["name"], "input_schema": PARAMETERS} for t in TOOLS]
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as c:
        r = c.messages.create(model="qwen3", max_tokens=500, tools=tools, tool_choice={"type": "tool", "name": "weather"}, messages=PROMPT)
        with c.messages.stream(model="qwen3", max_tokens=500, tools=tools, tool_choice={"type": "any", "disable_parallel_tool_use": True}, messages=PROMPT) as s:
            final = s.get_final_message()
    for m in (r, final):
        assert m.stop_reason == "tool_use" and [b.type for b in m.content] == ["tool_use"]
        jsonschema.validate(m.content[0].input, PARAMETERS)


def test_call_through_responses(client):
    tools = [{"type": "function", "name": "weather", "parameters": PARAMETERS}]
    events = list(client.responses.create(model="qwen3", input="Hi", tools=tools, tool_choice="required", parallel_tool_calls=False, stream=True,
                                          max_output_tokens=500, reasoning={"effort": "none"}))
    final = events[-1].response
    assert final.status == "completed" and final.output[0].type == "function_call" and final.output[0].name == "weather"
    jsonschema.validate(json.loads(final.output[0].arguments), PARAMETERS)
    deltas = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert deltas == final.output[0].arguments


def test_conflicts(server):
    for fields in ({"ignore_eos": True, "response_format": {"type": "json_object"}},
                   {"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}},
                   {"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}):
        status, body, _ = server.call("/v1/chat/completions", chat(**fields))
        assert status == 400 and body["error"]["param"]


def test_gone_clients_leave_no_rule_behind(server):
    """The engine may be inside of a rule when its client goes."""
    body = chat(max_tokens=400, stream=True, temperature=1, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "items": SCHEMA, "minItems": 50}}})
    from serving import post
    for _ in range(8):
        s = server.raw(post("/v1/chat/completions", body))
        s.recv(100)
        s.close()
    assert server.call("/v1/chat/completions", chat())[0] == 200


@pytest.mark.parametrize("parameters", [{}, {"type": ["object", "null"]}, {"description": "nothing said"}, {"anyOf": [{"type": "object"}, {"type": "string"}]}])
def test_arguments_are_objects_whatever_the_schema_allows(server, parameters):
    body = chat(max_tokens=60, temperature=1, seed=3, tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}], tool_choice="required",
                logit_bias={str(server.call("/tokenize", {"prompt": t, "add_special_tokens": False})[1]["tokens"][0]): 100 for t in "}f"})
    status, answer, _ = server.call("/v1/chat/completions", body)
    assert status == 200, answer
    call = answer["choices"][0]["message"]["tool_calls"][0]
    assert call["function"]["arguments"].startswith("{"), call


@pytest.mark.parametrize("type", ["string", ["string", "null"], 5])
def test_parameters_of_another_kind_are_refused(server, type):
    body = chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": type}}}])
    status, answer, _ = server.call("/v1/chat/completions", body)
    assert status == 400 and answer["error"]["param"] == "tools[0]" and "object" in answer["error"]["message"]
