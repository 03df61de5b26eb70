"""Calls of tools through /v1/chat/completions."""
import json

import jsonschema

from cases import source
from cases.chat import reasoning
from cases.talk import SYSTEM, USER

TEST = {"type": "function", "function": {"name": "test", "description": "", "parameters": {"type": "object", "properties": {"success": {"type": "boolean", "const": True}}, "required": ["success"]}}}
CODE = {"type": "function", "function": {"name": "python", "description": "Runs code.", "parameters": {"type": "object", "properties": {"code": {"type": "string", "maxLength": 20}},
                                                                                                                                   "required": ["code"]}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 10, "default": "Vienna"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                                     "options": {"$ref": "#/$defs/Options"}}, "required": ["city", "unit"], "additionalProperties": False,
    "$defs": {"Options": {"type": "object", "additionalProperties": False, "properties": {"forecast": {"type": "boolean"}, "language": {"enum": ["de", "en"]}}}}}}}
FORECAST = {"type": "function", "function": {"name": "get_forecast", "description": "The weather to come.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 10}, "days": {"type": "integer", "minimum": 1, "maximum": 7}}, "required": ["city", "days"], "additionalProperties": False}}}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "call_6789", "type": "function", "function": {"name": "calculate", "arguments": '{"expression":"sin(30 * pi / 180)"}'}}]},
          {"role": "tool", "name": "calculate", "content": "0.5", "tool_call_id": "call_6789"}]


def ask(s, tools, choice, thinking=False, **fields):
    return s.chat(tools=tools, tool_choice=choice, **{"max_tokens": 300, "temperature": 1, "seed": 3, "parallel_tool_calls": False, "chat_template_kwargs": {"enable_thinking": thinking}, **fields})


def calls(answer):
    """[(name, arguments)] of the first choice, whole or put together from a stream."""
    if not answer.events:
        return [(c["function"]["name"], c["function"]["arguments"]) for c in answer.message.get("tool_calls") or []]
    out = {}
    for choice in answer.deltas():
        for d in choice["delta"].get("tool_calls") or []:
            name, arguments = out.get(d["index"], ("", ""))
            out[d["index"]] = (name + (d["function"].get("name") or ""), arguments + d["function"]["arguments"])
    return list(out.values())


def use(s, choice, thinking, stream):
    """The begin of thoughts is made certain, their end likely: random weights think, and call."""
    bias = {"logit_bias": {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 20}, "repetition_penalty": 2} if thinking else {}
    return ask(s, [WEATHER, FORECAST], choice, thinking, stream=stream, max_tokens=600, **bias)


def content(answer):
    return answer.text if answer.events else answer.message["content"]


def named(tool):
    return {"type": "function", "function": {"name": tool["function"]["name"]}}


def fits(call, *tools):
    tool = next(t for t in tools if t["function"]["name"] == call[0])
    jsonschema.validate(json.loads(call[1]), tool["function"]["parameters"])
    return True


case, also, more = source("llama.cpp", "test_tool_call.py")
for stream in (False, True):
    way = "stream" if stream else "whole"
    for tool, key in ((TEST, "success"), (CODE, "code")):
        name = tool["function"]["name"]
        case(f"required-{name}-{way}", f"tool_choice required, one tool ({name}), {way} -> one call of it with `{key}`, no content",
             lambda s, tool=tool, key=key, stream=stream, name=name: (r := ask(s, [tool], "required", stream=stream)) and [c[0] for c in calls(r)] == [name]
             and key in json.loads(calls(r)[0][1]) and content(r) in (None, ""))
    for what, tools, choice in (("no-tools", None, None), ("auto", [TEST], None), ("none", [CODE], "none")):
        case(f"no-call-{what}-{way}", f"{what}, a model that does not call, {way} -> content, no calls",
             lambda s, tools=tools, choice=choice, stream=stream: (r := ask(s, tools, choice, stream=stream, max_tokens=20, temperature=0)).ok and not calls(r) and content(r))
    more(f"no-call-empty-tools-{way}", f"an empty list of tools, {way} -> content, no calls",
         lambda s, stream=stream: (r := ask(s, [], None, stream=stream, max_tokens=20, temperature=0)).ok and not calls(r) and content(r))
    case(f"history-{way}", f"a call and its result in the messages, {way} -> answered, no call", lambda s, stream=stream: (r := s.chat(messages=CALLED, tools=[TEST], stream=stream)).ok and not calls(r) and content(r))
    more(f"weather-{way}", f"the weather tool demanded, {way} -> its arguments are valid", lambda s, stream=stream: fits(calls(ask(s, [WEATHER], "required", stream=stream))[0], WEATHER))
case("malformed-arguments", "an earlier call whose arguments are no JSON -> 400 that names the message", lambda s: s.chat(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c", "type": "function", "function": {"name": "test", "arguments": "{"}}]}, USER]).refused("1"), differs="rendered as they are: the template takes a string, and the model wrote it")
more("call-has-id", "a call -> an id that is not empty, type function", lambda s: (c := ask(s, [TEST], "required").message["tool_calls"][0])["id"] and c["type"] == "function")
more("call-arguments-are-text", "a call -> arguments as a string", lambda s: isinstance(ask(s, [TEST], "required").call["arguments"], str))
more("tool-result-is-read", "another result of the tool -> another prompt", lambda s: s.chat(messages=CALLED, return_token_ids=True)["prompt_token_ids"]
     != s.chat(messages=[*CALLED[:2], {**CALLED[2], "content": "0.7"}], return_token_ids=True)["prompt_token_ids"])
more("tools-are-in-the-prompt", "tools -> a longer prompt, with their names", lambda s: "get_weather" in s.call("/apply-template", {"messages": [USER], "tools": [WEATHER]})["prompt"])
more("tools-none-not-in-the-prompt", "tool_choice none -> a prompt without them", lambda s: s.chat(tools=[WEATHER], tool_choice="none").usage["prompt_tokens"] == s.chat().usage["prompt_tokens"])

case, also, more = source("vLLM", "openai/chat_completion/test_completion_with_function_calling.py")
for thinking in (True, False):
    for choice_name, choice in (("required", "required"), ("named", named(WEATHER))):
        for stream in (True, False):
            case(f"use-{choice_name}-{'thinking' if thinking else 'plain'}-{'stream' if stream else 'whole'}",
                 f"two tools, {choice_name}, thinking {thinking}, stream {stream} -> a call" + ", behind thoughts" * thinking,
                 lambda s, thinking=thinking, choice=choice, stream=stream: fits(calls(r := use(s, choice, thinking, stream))[0], WEATHER, FORECAST) and (reasoning(r) if thinking else not content(r)))
for arguments in ("{}", ""):
    case(f"no-arguments-{'object' if arguments else 'empty'}", f"an earlier call with the arguments {arguments!r} -> answered",
         lambda s, arguments=arguments: s.chat(messages=[SYSTEM, USER, {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}]},
                                                         {"role": "tool", "tool_call_id": "c", "content": "12:00"}]).message["content"])
case("named", "a named tool, whole and as a stream -> valid arguments, no content, one end",
     lambda s: all(fits(calls(r := ask(s, [WEATHER, FORECAST], named(FORECAST), stream=stream))[0], FORECAST) and calls(r)[0][0] == "get_forecast" and not content(r)
                   and (not stream or len(r.finishes()) == 1) for stream in (False, True)))
more("named-fragments", "a named tool as a stream -> the name once, the arguments in several pieces",
     lambda s: (d := [t for c in ask(s, [WEATHER], named(WEATHER), stream=True).deltas() for t in c["delta"].get("tool_calls") or []]) and d[0]["function"]["name"] == "get_weather" and d[0]["id"]
     and not [t for t in d[1:] if t["function"].get("name")] and len(d) > 1)
more("named-finish", "a named tool -> finish_reason tool_calls", lambda s: ask(s, [WEATHER], named(WEATHER)).finish == "tool_calls")
case("named-without-tools", "a named tool without tools -> 400", lambda s: s.chat(tool_choice=named(WEATHER)).refused("tool"))
also("named-unknown", "a named tool that is none of the tools -> 400", lambda s: s.chat(tools=[WEATHER], tool_choice=named(FORECAST)).refused("get_forecast"))
also("choice-empty", "tool_choice {} -> 400", lambda s: s.chat(tools=[WEATHER], tool_choice={}).refused("tool_choice"))
for choice_name, choice in (("required", "required"), ("named", named(WEATHER))):
    case(f"one-token-{choice_name}", f"{choice_name} with one token -> ended for length, no call, no content",
         lambda s, choice=choice: (r := ask(s, [WEATHER], choice, max_tokens=1)).finish == "length" and not r.message.get("tool_calls") and not r.message["content"])

case, also, more = source("vLLM", "openai/chat_completion/test_tool_choice_null.py")
case("choice-null", "tool_choice null with tools -> as without the field", lambda s: s.chat(tools=[WEATHER], tool_choice=None, return_token_ids=True)["prompt_token_ids"]
     == s.chat(tools=[WEATHER], return_token_ids=True)["prompt_token_ids"])
case("choice-null-no-tools", "tool_choice null without tools -> answered", lambda s: s.chat(tool_choice=None).answered)
case("choice-null-and-schema", "tool_choice null with a schema -> obeyed", lambda s: s.plain(tool_choice=None, structured_outputs={"json": {"const": 5}}).text == "5")
case("choice-bogus", "tool_choice of no meaning -> 400", lambda s: s.chat(tools=[WEATHER], tool_choice="bogus").refused("tool_choice"))
case("choice-auto-no-tools", "tool_choice auto without tools -> 400", lambda s: s.chat(tool_choice="auto").refused("tools"))
more("choice-none-no-tools", "tool_choice none without tools -> answered", lambda s: s.chat(tool_choice="none").answered)
case("choice-none", "tool_choice none with tools -> content, no call", lambda s: (m := s.chat(tools=[WEATHER], tool_choice="none").message)["content"] and not m.get("tool_calls"))

case, also, more = source("vLLM", "openai/chat_completion/test_delta_tool_call_serialization.py")
case("delta-fields", "deltas of a call -> each has its index; id, type and name come with the first, and are not even null in the others",
     lambda s: (d := [t for c in ask(s, [TEST], "required", stream=True).deltas() for t in c["delta"].get("tool_calls") or []]) and len(d) > 1 and all(t["index"] == 0 for t in d) and d[0]["id"]
     and d[0]["type"] == "function" and d[0]["function"]["name"] == "test" and not [t for t in d[1:] if {"id", "type"} & set(t) or "name" in t["function"]])

case, also, more = source("vLLM", "openai/chat_completion/test_serving_chat.py")
more("parallel-off", "parallel_tool_calls false, required -> one call", lambda s: len(calls(ask(s, [WEATHER, FORECAST], "required"))) == 1)
more("tools-bad-schema", "a tool whose parameters no schema are -> 400", lambda s: s.chat(tools=[{"type": "function", "function": {"name": "f", "parameters": 5}}]).refused("tools[0]"))
more("tools-no-name", "a tool without a name -> 400", lambda s: s.chat(tools=[{"type": "function", "function": {"parameters": {}}}]).refused("name"))
more("tools-other-type", "a tool that is no function -> 400", lambda s: s.chat(tools=[{"type": "code_interpreter"}]).refused("function"))
more("tools-no-parameters", "a tool without parameters -> a call with an object", lambda s: isinstance(json.loads(ask(
    s, [{"type": "function", "function": {"name": "now"}}], "required", max_tokens=60, logit_bias={str(s.ids("}")[0]): 100}).call["arguments"]), dict))


def each(answer):
    """[name, arguments, ends] of every choice of a stream."""
    out = {}
    for choice in (c for e in answer.events for c in e["choices"]):
        call = out.setdefault(choice["index"], ["", "", []])
        for d in choice["delta"].get("tool_calls") or []:
            call[0], call[1] = call[0] + (d["function"].get("name") or ""), call[1] + d["function"]["arguments"]
        call[2] += [choice["finish_reason"]] * bool(choice["finish_reason"])
    return list(out.values())


def cut_behind_the_call(s):
    """Two choices whose calls are whole when max_tokens ends them."""
    n = ask(s, [WEATHER], "required", temperature=0).usage["completion_tokens"] - 1
    return each(ask(s, [WEATHER], "required", stream=True, temperature=0, n=2, max_tokens=n))


for end, stream in (("tool_calls", lambda s: each(ask(s, [WEATHER], "required", stream=True, n=2))), ("length", cut_behind_the_call)):
    case(f"two-calls-{end}", f"n 2 as a stream, ended for {end} -> a whole call in each choice, one end each",
         lambda s, end=end, stream=stream: len(both := stream(s)) == 2 and all(fits((name, arguments), WEATHER) and ends == [end] for name, arguments, ends in both))
case("call-logprobs", "a call as a stream with logprobs -> those of all tokens, of <tool_call>, too",
     lambda s: (r := ask(s, [WEATHER], "required", stream=True, logprobs=True, stream_options={"include_usage": True})).streamed
     and len([t for c in r.deltas() if c["logprobs"] for t in c["logprobs"]["content"]]) == r.events[-1]["usage"]["completion_tokens"] > 10)
case("tool-parts", "the result of a tool in parts -> as text", lambda s: s.same(*[s.chat(messages=[*CALLED[:2], {**CALLED[2], "content": c}]) for c in ("0.5", [{"type": "text", "text": "0.5"}])]))
