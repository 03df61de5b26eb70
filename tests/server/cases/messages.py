"""/v1/messages and /v1/messages/count_tokens, the API of Anthropic."""
import json

from cases import source

TOOL = {"name": "get_weather", "description": "The weather of a place", "input_schema": {"type": "object", "properties": {"location": {"type": "string", "maxLength": 10}}, "required": ["location"]}}
USE = {"type": "tool_use", "id": "test123", "name": "get_weather", "input": {"location": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "test123", "content": "sunny, 25 degrees"}


def talk(*turns):
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def send(s, messages, **fields):
    return s.call("/v1/messages", {"messages": messages, "max_tokens": 8, "temperature": 0, **fields})


def count(s, messages, **fields):
    return s.call("/v1/messages/count_tokens", {"messages": messages, **fields})


def pick(answer, kind):
    return next(e for e in answer.events if e["type"] == kind)


case, also, more = source("llama.cpp", "test_compat_anthropic.py")
case("message", "a message -> type message, role assistant, a block of text, a stop_reason",
     lambda s: (r := s.message()).ok and (r["type"], r["role"]) == ("message", "assistant") and r["content"][0]["type"] == "text" and r["stop_reason"] in ("end_turn", "max_tokens"))
also("message-usage", "the same -> input_tokens, output_tokens and cache_read_input_tokens as integers",
     lambda s: all(isinstance(s.message().usage[k], int) for k in ("input_tokens", "output_tokens", "cache_read_input_tokens")) and s.message().usage["output_tokens"] > 0)
also("message-no-timings", "the same -> no timings", lambda s: (r := s.message()).text and "timings" not in r.body)
case("message-system", "a system prompt -> answered, otherwise than without", lambda s: s.message(system="You are a pirate.").ok and s.message(system="You are a pirate.").text != s.message().text)
case("message-parts", "content in two blocks -> as in one", lambda s: s.same(send(s, talk([{"type": "text", "text": "What is"}, {"type": "text", "text": " it?"}])), send(s, talk("What is it?"))))
case("message-turns", "three turns -> answered", lambda s: send(s, talk("Hello", "Hi there!", "How are you?")).answered)
KINDS = ("message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop")
case("message-stream", "a stream -> the six kinds of events", lambda s: set(KINDS) <= set(s.message(stream=True).types()))
more("message-stream-order", "a stream -> the kinds in their order", lambda s: list(dict.fromkeys(k for k in s.message(stream=True).types() if k != "ping")) == list(KINDS))
also("message-stream-start", "message_start -> an empty message with the tokens of the prompt",
     lambda s: (m := pick(s.message("how many tokens has this ?", stream=True), "message_start")["message"])["content"] == [] and m["role"] == "assistant" and m["type"] == "message" and m["usage"]["input_tokens"] > 0)
also("message-stream-block", "content_block_start -> index 0, text", lambda s: (b := pick(s.message(stream=True), "content_block_start"))["index"] == 0 and b["content_block"]["type"] == "text")
also("message-stream-deltas", "deltas -> text_delta, which make the text", lambda s: s.same(s.message(stream=True), s.message()) and all(
    e["delta"]["type"] == "text_delta" for e in s.message(stream=True).events if e["type"] == "content_block_delta"))
also("message-stream-end", "message_delta -> stop_reason and output_tokens",
     lambda s: (d := pick(s.message(stream=True), "message_delta"))["delta"]["stop_reason"] == "max_tokens" and d["usage"]["output_tokens"] == 8)
also("message-stream-no-timings", "message_stop -> no timings", lambda s: "timings" not in pick(s.message(stream=True), "message_stop"))
case("count", "count_tokens -> input_tokens alone", lambda s: set((r := count(s, talk("Hello world"))).body) == {"input_tokens"} and r["input_tokens"] > 0)
case("count-system", "with a system prompt -> more", lambda s: count(s, talk("Hello"), system="You are a helpful assistant.")["input_tokens"] > count(s, talk("Hello"))["input_tokens"])
case("count-no-max", "without max_tokens -> counted", lambda s: count(s, talk("Hello"))["input_tokens"] > 0)
more("count-is-right", "counted and asked -> the same number", lambda s: count(s, talk("Hello"))["input_tokens"] == (u := send(s, talk("Hello")).usage)["input_tokens"] + u["cache_read_input_tokens"])
case("tools", "tools that may be called -> answered; a call has id, name and input, and is the stop_reason",
     lambda s: (r := s.message(tools=[TOOL], max_tokens=40))["type"] == "message" and r["content"]
     and all(b["name"] == "get_weather" and b["id"] and isinstance(b["input"], dict) and r["stop_reason"] == "tool_use" for b in r["content"] if b["type"] == "tool_use"))
more("tools-demanded", "tool_choice any -> a call, stop_reason tool_use", lambda s: (r := s.message(tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_tokens=300, temperature=1, seed=1))[
    "stop_reason"] == "tool_use" and r["content"][-1]["name"] == "get_weather" and "location" in r["content"][-1]["input"])
case("tool-result", "a call and its result -> an answer of text", lambda s: send(s, talk("The weather?", [USE], [RESULT]), tools=[TOOL])["content"][0]["type"] == "text")
case("tool-result-and-text", "a result beside text -> answered", lambda s: send(s, talk("The weather?", [USE], [{"type": "text", "text": "Here:"}, RESULT])).answered)
case("tool-result-error", "a result with is_error -> answered", lambda s: send(s, talk("The weather?", [USE], [{**RESULT, "is_error": True}])).answered)
more("tool-result-parts", "a result in blocks -> as text", lambda s: s.same(*[send(s, talk("?", [USE], [{**RESULT, "content": c}])) for c in ("sunny", [{"type": "text", "text": "sunny"}])]))
case("tool-stream", "a call as a stream -> content_block_start of tool_use with its name, then input_json_delta",
     lambda s: (r := s.message(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}, max_tokens=300, temperature=1, seed=1, stream=True))
     and (b := next(e for e in r.events if e["type"] == "content_block_start" and e["content_block"]["type"] == "tool_use"))["content_block"]["name"] == "get_weather"
     and json.loads("".join(e["delta"]["partial_json"] for e in r.events if e["type"] == "content_block_delta" and e["delta"]["type"] == "input_json_delta" and e["index"] == b["index"])))
case("tool-stream-indices", "blocks of a stream -> counted from 0, each stopped",
     lambda s: (r := s.message(tools=[TOOL], tool_choice={"type": "any"}, max_tokens=400, temperature=1, seed=1, stream=True)).streamed
     and (i := [e["index"] for e in r.events if e["type"] == "content_block_start"]) == list(range(len(i))) == sorted(e["index"] for e in r.events if e["type"] == "content_block_stop") != [])
IMAGE = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}, {"type": "text", "text": "?"}]
case("image", "an image for a model of text -> 500, and an error that says so", lambda s: send(s, talk(IMAGE)).refused("image", status=500), differs="400: it is the client's mistake")
more("image-own", "the same -> 400, and an error that says so", lambda s: send(s, talk(IMAGE)).refused("image"))
case("stop-sequences", "stop_sequences -> ends before the first of them", lambda s: (w := s.message().text) and (r := s.message(stop_sequences=[w[3:6], "END"]))["stop_reason"] == "stop_sequence"
     and r["stop_sequence"] == w[3:6] and r.text == w[:w.index(w[3:6])])
for name, value in (("temperature", 0.5), ("top_p", 0.9), ("top_k", 40), ("metadata", {"user_id": "test_user_123"})):
    case(f"message-{name}", f"{name} {value} -> taken", lambda s, name=name, value=value: s.message(**{name: value}).answered)
case("message-missing", "no messages -> an error", lambda s: s.call("/v1/messages", {"max_tokens": 5}).refused("messages"))
case("message-empty", "an empty list of messages -> answered", lambda s: send(s, []).answered, differs="400, as Anthropic's own API: there is nothing to answer")
case("thinking", "thinking enabled -> answered", lambda s: s.message(thinking={"type": "enabled", "budget_tokens": 50}).answered)


def thoughts(s, **fields):
    """The begin of thoughts is made certain, their end likely, and neither comes twice: random weights have thoughts and text."""
    ids = {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 7}
    return s.message(**{"thinking": {"type": "enabled", "budget_tokens": 50}, "max_tokens": 200, "temperature": 1, "seed": 1, "repetition_penalty": 100, "logit_bias": ids, **fields})


case("thinking-block", "thoughts -> a block of its own, first, with a signature", lambda s: (b := thoughts(s)["content"][0])["type"] == "thinking" and b["thinking"] and "signature" in b)
also("thinking-then-text", "thoughts and an answer -> thinking, then text", lambda s: [b["type"] for b in thoughts(s)["content"]][:2] == ["thinking", "text"])
case("thinking-stream", "the same as a stream -> thinking at index 0, thinking_delta, signature_delta, text at index 1",
     lambda s: (r := thoughts(s, stream=True)) and [(e["index"], e["content_block"]["type"]) for e in r.events if e["type"] == "content_block_start"][:2] == [(0, "thinking"), (1, "text")]
     and {"thinking_delta", "signature_delta"} <= {e["delta"]["type"] for e in r.events if e["type"] == "content_block_delta"})
case("message-is-no-completion", "the same question in both APIs -> each in its own form, with its own names in usage",
     lambda s: (c := s.chat())["object"] == "chat.completion" and c.choices and {"prompt_tokens", "completion_tokens"} <= set(c.usage)
     and (m := s.message())["type"] == "message" and m["content"] and {"input_tokens", "output_tokens"} <= set(m.usage) and not {"choices", "object"} & set(m.body))

case, also, more = source("vLLM", "anthropic/test_messages.py")


def ending(s):
    return {"temperature": 1, "seed": 1, "logit_bias": {str(s.ids("<|im_end|>")[0]): 4}, "max_tokens": 300}


case("simple", "a message, of a model that ends -> role assistant, stop_reason end_turn", lambda s: (r := s.message("how are you!", **ending(s)))["role"] == "assistant" and r["stop_reason"] == "end_turn")
case("system", "the same with a system prompt -> the same", lambda s: (r := s.message("how are you!", system="you are a helpful assistant", **ending(s)))["role"] == "assistant" and r["stop_reason"] == "end_turn")
more("system-blocks", "a system prompt in blocks -> as text", lambda s: s.same(s.message(system="Be brief."), s.message(system=[{"type": "text", "text": "Be brief."}])))
case("streaming", "a stream -> ends with message_stop", lambda s: s.message("how are you!", stream=True).types()[-1] == "message_stop")
case("tool-call", "a demanded tool -> stop_reason tool_use", lambda s: s.message(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}, max_tokens=300, temperature=1, seed=2)["stop_reason"] == "tool_use")
case("tool-call-stream", "the same as a stream -> stop_reason tool_use",
     lambda s: pick(s.message(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}, max_tokens=300, temperature=1, seed=2, stream=True), "message_delta")["delta"]["stop_reason"] == "tool_use")

case, also, more = source("vLLM", "anthropic/test_content_block_validation.py")
for name, block in (("use-no-id", {k: v for k, v in USE.items() if k != "id"}), ("use-empty-id", {**USE, "id": ""}), ("use-no-name", {k: v for k, v in USE.items() if k != "name"}),
                    ("use-empty-name", {**USE, "name": ""}), ("use-no-input", {k: v for k, v in USE.items() if k != "input"}), ("text-none", {"type": "text"}),
                    ("image-no-source", {"type": "image"}), ("thinking-none", {"type": "thinking", "signature": "abc"}), ("redacted-none", {"type": "redacted_thinking"}), ("redacted-empty", {"type": "redacted_thinking", "data": ""})):
    case(f"block-{name}", f"{json.dumps(block)} -> 400", lambda s, block=block: send(s, talk("?", [block, {"type": "text", "text": "x"}], "and?")).refused())
for name, block in (("result-no-id", {"type": "tool_result", "content": "x"}), ("result-empty-id", {"type": "tool_result", "tool_use_id": "", "content": "x"})):
    case(f"block-{name}", f"{json.dumps(block)} -> 400", lambda s, block=block: send(s, talk("?", [USE], [block])).refused())
for name, block in (("use", USE), ("use-empty-input", {**USE, "input": {}}), ("text-empty", {"type": "text", "text": ""}), ("text", {"type": "text", "text": "hello"}), ("thinking", {"type": "thinking", "thinking": "hm", "signature": "s"}),
                    ("thinking-empty", {"type": "thinking", "thinking": ""}), ("thinking-no-signature", {"type": "thinking", "thinking": "hm"}), ("redacted", {"type": "redacted_thinking", "data": "opaque"})):
    case(f"block-{name}-passes", f"{json.dumps(block)} -> taken", lambda s, block=block: send(s, talk("?", [block, {"type": "text", "text": "x"}], "and?")).answered)
case("block-result-passes", "a result without content -> taken", lambda s: send(s, talk("?", [USE], [{"type": "tool_result", "tool_use_id": "test123"}])).answered)
case("block-result-content-passes", "a result with content -> taken", lambda s: send(s, talk("?", [USE], [RESULT])).answered)
case("block-reference-passes", "a tool_reference -> taken", lambda s: send(s, talk("?", [USE], [RESULT, {"type": "tool_reference", "tool_name": "search"}])).answered,
     differs="400: the tool that it stands for would not be in the prompt, and nobody would know")

case, also, more = source("vLLM", "anthropic/test_stream_error.py")
more("error-form", "an error -> type error, error.type and error.message", lambda s: (r := s.message(temperature=9)).body["type"] == "error" and r.error["type"] == "invalid_request_error" and r.error["message"])
more("error-model", "another model -> 404 not_found_error", lambda s: (r := s.message(model="claude")).status == 404 and r.error["type"] == "not_found_error")

case, also, more = source("vLLM", "anthropic/test_cache_accounting.py")
case("cache-read", "the same prompt twice -> cache_read_input_tokens 0, then more, and the sum stays",
     lambda s: (a := s.message("cache me " * 20, system="Cached.").usage)["cache_read_input_tokens"] == 0 and (b := s.message("cache me " * 20, system="Cached.").usage)["cache_read_input_tokens"] > 16
     and a["input_tokens"] == b["input_tokens"] + b["cache_read_input_tokens"])

case("cache-read-stream", "the same as a stream -> in the usage at the end", lambda s: s.message("cache me too " * 20).ok and pick(s.message("cache me too " * 20, stream=True), "message_delta")["usage"]["cache_read_input_tokens"] > 0)

case, also, more = source("vLLM", "anthropic/test_usage_policy.py")
case("usage", "a message -> input and output tokens", lambda s: (u := s.message("a fresh question of its own").usage)["input_tokens"] > 0 and u["output_tokens"] > 0)
case("usage-at-start", "a stream -> the prompt's tokens in message_start, 0 of the answer", lambda s: (u := pick(s.message("another one of its own", stream=True), "message_start")["message"]["usage"])["input_tokens"] > 0 and u["output_tokens"] == 0)
also("usage-in-stream", "a stream -> usage in message_delta without asking", lambda s: (u := pick(s.message("a third of its own", stream=True), "message_delta")["usage"])["output_tokens"] == 8 and u["input_tokens"] > 0)

case, also, more = source("vLLM", "anthropic/test_anthropic_messages_conversion.py")


def chat_of(s, messages, **fields):
    return s.chat(messages=messages, chat_template_kwargs={"enable_thinking": False}, **fields)


BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.37.abc; cc_entrypoint=cli;"}
HELP = {"role": "system", "content": "You are a helpful assistant."}
case("convert-billing", "a system block with the header of Claude Code's bills -> left out", lambda s: send(s, talk("Hello"), system=[{"type": "text", "text": HELP["content"]}, BILLING]).text == chat_of(s, [HELP, *talk("Hello")]).text)
case("convert-system-blocks", "two system blocks -> put together as they are", lambda s: send(s, talk("Hello"), system=[{"type": "text", "text": "You are a helpful"}, {"type": "text", "text": " assistant."}]).text
     == chat_of(s, [HELP, *talk("Hello")]).text)
case("convert-system-string", "a system string -> a system message", lambda s: send(s, talk("Hello"), system=HELP["content"]).text == chat_of(s, [HELP, *talk("Hello")]).text)
CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "test123", "type": "function", "function": {"name": "get_weather", "arguments": '{"location": "Paris"}'}}]}
for name, content, text in (("string", "file contents here", "file contents here"), ("blocks", [{"type": "text", "text": "line 1"}, {"type": "text", "text": "line 2"}], "line 1\nline 2"), ("block", [{"type": "text", "text": "just text"}], "just text"), ("none", None, "")):
    case(f"convert-result-{name}", f"a tool's result as {name} -> a message of the tool: {text!r}",
         lambda s, c=content, text=text: send(s, talk("?", [USE], [{**RESULT, "content": c}])).text == chat_of(s, [*talk("?"), CALL, {"role": "tool", "tool_call_id": "test123", "content": text}]).text)
THINK = {"type": "thinking", "thinking": "I should.", "signature": "sig"}
for name, blocks, message in (("text", [THINK, {"type": "text", "text": "Sure!"}], {"content": "Sure!", "reasoning": "I should."}), ("alone", [THINK], {"content": "", "reasoning": "I should."}),
                              ("use", [THINK, USE], {**CALL, "reasoning": "I should."}), ("twice", [THINK, THINK, {"type": "text", "text": "Done."}], {"content": "Done.", "reasoning": "I should.I should."}),
                              ("redacted", [THINK, {"type": "redacted_thinking", "data": "AAAA"}, {"type": "text", "text": "Hi!"}], {"content": "Hi!", "reasoning": "I should."}),
                              ("none", [{"type": "text", "text": "Hello!"}], {"content": "Hello!"})):
    case(f"convert-thinking-{name}", f"an earlier answer with thoughts ({name}) -> its reasoning and content apart",
         lambda s, blocks=blocks, message=message: send(s, talk("Hi", blocks, "Go on.") if name != "use" else talk("Hi", blocks, [RESULT])).text
         == chat_of(s, [{"role": "user", "content": "Hi"}, {"role": "assistant", **message}, {"role": "user", "content": "Go on."}]).text)
case("convert-thinking-turns", "three turns with thoughts -> their reasoning and content apart",
     lambda s: send(s, talk("1", [THINK, {"type": "text", "text": "a"}], "2", [THINK, {"type": "text", "text": "b"}], "3")).text
     == chat_of(s, [m for q, a in (("1", "a"), ("2", "b")) for m in ({"role": "user", "content": q}, {"role": "assistant", "content": a, "reasoning": "I should."})] + [{"role": "user", "content": "3"}]).text != "")
case("convert-cache-hit", "part of the prompt in the cache -> input_tokens are the rest", lambda s: s.message("hit " * 60).ok and (u := s.message("hit " * 60).usage)["input_tokens"] + u["cache_read_input_tokens"]
     == count(s, talk("hit " * 60))["input_tokens"] and u["cache_read_input_tokens"] > 0)
case("convert-cache-none", "nothing in the cache -> 0 read, 0 created", lambda s: (u := s.message("none of it", cache_salt="none").usage)["cache_read_input_tokens"] == 0 == u["cache_creation_input_tokens"])
HELLO, CONCISE = {"role": "user", "content": "Hello"}, {"role": "system", "content": "Be concise."}
SYSTEM_ALONE = "the header is left out of `system` alone"
PAIR = [{"type": "text", "text": "Be "}, {"type": "text", "text": "concise."}]
for name, system, messages, told, why in (
        ("string", None, [HELLO, CONCISE], [HELLO, CONCISE], None), ("blocks", None, [HELLO, {**CONCISE, "content": PAIR}], [HELLO, CONCISE], None),
        ("several", None, [HELP, HELLO, CONCISE], [HELP, HELLO, CONCISE], None), ("beside", HELP["content"], [HELLO, CONCISE], [HELP, HELLO, CONCISE], None),
        ("all", [BILLING, {"type": "text", "text": "You are a helpful", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": " assistant."}],
         [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo", "cache_control": {"type": "ephemeral"}}]}, CONCISE], [HELP, HELLO, CONCISE], None),
        ("billing", None, [HELLO, {**CONCISE, "content": BILLING["text"]}, {"role": "assistant", "content": "Hi"}, HELLO], [HELLO, {"role": "assistant", "content": "Hi"}, HELLO], SYSTEM_ALONE),
        ("billing-mixed", None, [HELLO, {**CONCISE, "content": [BILLING, {"type": "text", "text": "Be concise."}]}], [HELLO, CONCISE], SYSTEM_ALONE)):
    case(f"convert-inline-system-{name}", f"a system message among the others ({name}) -> stays where it is, without headers of bills",
         lambda s, system=system, messages=messages, told=told: send(s, messages, **({"system": system} if system else {})).text == chat_of(s, told).text != "", differs=why)
case("convert-start", "a stream -> its first event has the message's type and role", lambda s: (m := s.message(stream=True).events[0]["message"])["type"] == "message" and m["role"] == "assistant")
for name, prompt in (("hit", "stream hit " * 20), ("miss", "a prompt that nobody sent")):
    case(f"convert-stream-cache-{name}", f"a stream, a {name} in the cache -> the numbers of the cache in message_delta, and none of them in message_start",
         lambda s, name=name, prompt=prompt: (name == "miss" or s.message(prompt).ok) and (r := s.message(prompt, stream=True)) and (pick(r, "message_delta")["usage"]["cache_read_input_tokens"] > 0) is (name == "hit")
         and "cache_read_input_tokens" not in pick(r, "message_start")["message"]["usage"], differs="in both, as Anthropic's own API; 0 in message_start, before the cache was searched")
case("convert-empty", "an answer that ends at once -> one empty block of text", lambda s: [b["text"] for b in s.message(logit_bias={str(s.ids("<|im_end|>")[0]): 100})["content"]] == [""],
     differs="no block, as Anthropic's own API")
case("convert-salt", "cache_salt -> nothing found that others left", lambda s: s.message("salted " * 20).ok and s.message("salted " * 20, cache_salt="of mine").usage["cache_read_input_tokens"] == 0)
case("convert-salt-none", "none -> found", lambda s: s.message("unsalted " * 20).ok and s.message("unsalted " * 20).usage["cache_read_input_tokens"] > 0)
case("convert-salt-empty", "an empty one -> 400", lambda s: s.message(cache_salt="").refused("cache_salt"))
case("convert-stop-string", "a stop sequence comes -> stop_reason stop_sequence, and which", lambda s: (w := s.message().text) and (r := s.message(stop_sequences=[w[3:6]]))["stop_reason"] == "stop_sequence"
     and r["stop_sequence"] == w[3:6])
case("convert-stop-string-stream", "the same as a stream -> in message_delta", lambda s: (w := s.message().text) and pick(s.message(stop_sequences=[w[3:6]], stream=True), "message_delta")["delta"]
     == {"stop_reason": "stop_sequence", "stop_sequence": w[3:6]})
case("convert-stop-end", "the model ends -> end_turn, stop_sequence null", lambda s: (r := s.message(**ending(s)))["stop_reason"] == "end_turn" and r["stop_sequence"] is None)
case("convert-stop-end-stream", "the same as a stream -> the null is there, too", lambda s: pick(s.message(**ending(s), stream=True), "message_delta")["delta"] == {"stop_reason": "end_turn", "stop_sequence": None})
case("convert-stop-id", "a stop by its id -> end_turn, stop_sequence null", lambda s: (r := s.message(logit_bias={"65": 100}, stop_token_ids=[65]))["stop_reason"] == "end_turn" and r["stop_sequence"] is None)
for name, ask in (("field", lambda s: s.message(stop_sequences=["a"] * 60)), ("value", lambda s: s.message(stop_sequences=[""])), ("count", lambda s: count(s, talk("x"), tools=5))):
    case(f"convert-error-{name}", f"a {name} that is wrong -> 400, type BadRequestError", lambda s, ask=ask: ask(s).refused() and ask(s).error["type"] == "BadRequestError",
         differs="invalid_request_error, as Anthropic's own API")
    more(f"convert-error-{name}-own", f"a {name} that is wrong -> 400, type invalid_request_error", lambda s, ask=ask: ask(s).refused() and ask(s).error["type"] == "invalid_request_error")


def thinks(s, **fields):
    """Whether the prompt lets the model think."""
    text = send(s, talk("Hello"), **fields).text
    return {s.chat("Hello").text: True, chat_of(s, talk("Hello")).text: False}[text]


BUDGET = {"type": "enabled", "budget_tokens": 2048}
case("convert-think-absent", "no thinking -> as the template has it: Qwen3 thinks", lambda s: thinks(s), differs="does not think, as Anthropic's own API")
case("convert-think-disabled", "disabled -> does not think", lambda s: not thinks(s, thinking={"type": "disabled"}) and thinks(s, thinking={"type": "adaptive"}))
case("convert-think-disabled-effort", "disabled, and an effort in output_config -> does not think", lambda s: not thinks(s, thinking={"type": "disabled"}, output_config={"effort": "high"})
     and thinks(s, thinking={"type": "adaptive"}, output_config={"effort": "high"}))
case("convert-think-budget", "enabled with a budget -> thinks, and no longer than that", lambda s: len(thoughts(s)["content"][0]["thinking"]) > 0 and (b := s.message(
    thinking={"type": "enabled", "budget_tokens": 10}, max_tokens=100, temperature=0, logit_bias={str(s.ids("<think>")[0]): 100})["content"]) and len(b[0]["thinking"]) < 10 * len("<think>") + 1,
     differs="there are no budgets of thoughts: max_tokens bounds the whole answer")
for name, thinking in (("no-type", {"budget_tokens": 2048}), ("no-budget", {"type": "enabled"}), ("small-budget", {"type": "enabled", "budget_tokens": 1023}),
                       ("large-budget", {"type": "enabled", "budget_tokens": 4096}), ("display", {"type": "adaptive", "display": "full"})):
    case(f"convert-think-{name}", f"thinking {json.dumps(thinking)} -> 400", lambda s, t=thinking: send(s, talk("Hello"), thinking=t, max_tokens=3000, stop_sequences=["a", "e", "i", "o"]).refused(),
         differs="taken: there are no budgets of thoughts, and llama-server takes a small one (thinking)")
case("convert-think-adaptive", "adaptive, and an effort -> thinks", lambda s: thinks(s, thinking={"type": "adaptive"}, output_config={"effort": "low"}))
for display in ("omitted", "summarized", "updates"):
    case(f"convert-think-{display}", f"adaptive, display {display} -> thinks, and its thoughts are in the answer",
         lambda s, display=display: thinks(s, thinking={"type": "adaptive", "display": display}) and (b := thoughts(s, thinking={"type": "adaptive", "display": display})["content"][0])["type"] == "thinking"
         and b["thinking"])
case("convert-think-claude-code", "what Claude Code sends, adaptive, omitted and an effort -> thinks, and its thoughts are in the answer",
     lambda s: thinks(s, thinking={"type": "adaptive", "display": "omitted"}, output_config={"effort": "high"})
     and thoughts(s, thinking={"type": "adaptive", "display": "omitted"}, output_config={"effort": "high"})["content"][0]["thinking"])
more("message-prefill", "the last message is the assistant's -> gone on with",
     lambda s: send(s, talk("Hi", "So I")).text == s.chat(messages=talk("Hi", "So I"), continue_final_message=True, chat_template_kwargs={"enable_thinking": False}).text)
more("message-choice-auto", "tool_choice auto -> answered", lambda s: s.message(tools=[TOOL], tool_choice={"type": "auto"}).answered)
more("message-choice-none", "tool_choice none -> no call", lambda s: all(b["type"] == "text" for b in s.message(tools=[TOOL], tool_choice={"type": "none"})["content"]))
more("message-choice-unknown", "a tool that is none of the tools -> 400", lambda s: s.message(tools=[TOOL], tool_choice={"type": "tool", "name": "other"}).refused())

case, also, more = source("vLLM", "anthropic/test_message_stream_converter.py")


def blocks(answer):
    """[(type, what its deltas make)] of a stream whose blocks are opened, told and closed one after the other."""
    out, open = [], None
    for event in answer.events:
        if event["type"] == "content_block_start":
            assert open is None
            open = event["index"]
            out.append((event["content_block"]["type"], ""))
        elif event["type"].startswith("content_block"):
            assert open == event["index"]
            delta = event.get("delta", {})
            out[-1] = (out[-1][0], out[-1][1] + next((delta[k] for k in ("text", "partial_json", "thinking") if k in delta), ""))
            open = None if event["type"] == "content_block_stop" else open
    return out if open is None else []


DEMAND = {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}, "max_tokens": 400, "temperature": 1, "seed": 1, "stream": True}
case("blocks-text", "a stream of text that ends -> one block of it, end_turn", lambda s: len(b := blocks(r := s.message(**ending(s), stream=True))) == 1 and b[0][0] == "text" and b[0][1]
     and pick(r, "message_delta")["delta"]["stop_reason"] == "end_turn")
case("blocks-tool", "a call in several deltas -> one block of it, whole, tool_use", lambda s: len(b := blocks(r := s.message(**DEMAND))) == 1 and b[0][0] == "tool_use" and "location" in json.loads(b[0][1])
     and [e["type"] for e in r.events].count("content_block_delta") > 2 and pick(r, "message_delta")["delta"]["stop_reason"] == "tool_use")
case("blocks-thinking-tool", "thoughts, then a call -> a block of each, in this order", lambda s: (b := blocks(r := s.message(
    **{**DEMAND, "thinking": {"type": "adaptive"}, "repetition_penalty": 2, "logit_bias": {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 20}}))) and [k for k, t in b if t] == ["thinking", "tool_use"]
     and "location" in json.loads(b[-1][1]) and pick(r, "message_delta")["delta"]["stop_reason"] == "tool_use")
