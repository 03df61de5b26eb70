"""/v1/chat/completions: messages, streams, log probabilities, choices, templates, reasoning, refusals."""
import json

from cases import source
from cases.talk import SYSTEM, USER

FIRST = '"" as OpenAI and vLLM send it: clients that only add strings live on'
TALK = [{"role": "user", "content": "Who won?"}, {"role": "assistant", "content": "The Dodgers."}, {"role": "user", "content": "Where was it played?"}]

# ---- llama-server ---------------------------------------------------------------------------------------------

case, also, more = source("llama.cpp", "test_chat_completion.py")
PARTS = [{"type": "text", "text": "What is the "}, {"type": "text", "text": "best book?"}]
for name, messages in (("short", [SYSTEM, {"role": "user", "content": "Hey"}]), ("system-user", [SYSTEM, USER]), ("parts", [SYSTEM, {"role": "user", "content": PARTS}])):
    case(f"chat-{name}", f"{name}, model null, 8 tokens -> 200, an assistant's message, a fingerprint, the prompt's tokens and 8 counted, for length",
         lambda s, m=messages: (r := s.chat(messages=m, model=None)).ok and "cmpl" in r["id"] and r["system_fingerprint"] and r.message["role"] == "assistant" and r.message["content"]
         and r.finish == "length" and r.usage["completion_tokens"] == 8 and r.usage["prompt_tokens"] == s.call("/tokenize", {"messages": m})["count"])
more("chat-parts-are-text", "text in parts -> the answer to the text in one", lambda s: s.same(s.chat(messages=[{"role": "user", "content": PARTS}]), s.chat("What is the best book?")))
case("chat-any-model", "a model's name that nobody serves -> answered", lambda s: s.chat(model="codellama70b", max_tokens=128).answered,
     differs="404 model_not_found, as vLLM and OpenAI; --served-model-name gives aliases")
for n in (8, 64):
    case(f"chat-stream-{n}", f"a stream of {n} tokens -> one id, the alias that was asked for, the role first and once, no content in the one end for length, usage",
         lambda s, n=n: (r := s.call("/v1/chat/completions", {"messages": [USER], "max_tokens": n, "ignore_eos": True, "stream": True, "model": "alias", "stream_options": {"include_usage": True}},
                                     server=s.start("--served-model-name", "own", "--served-model-name", "alias"))).streamed and len({e["id"] for e in r.events}) == 1
         and {e["model"] for e in r.events} == {"alias"} and all(e["system_fingerprint"] for e in r.events) and r.deltas()[0]["delta"]["role"] == "assistant"
         and not [c for c in r.deltas()[1:] if "role" in c["delta"]] and r.finishes() == ["length"] and "content" not in r.deltas()[-1]["delta"] and r.events[-1]["usage"]["completion_tokens"] == n)
    also(f"chat-stream-{n}-first", "the same -> the first delta has the content null", lambda s, n=n: s.chat(stream=True, max_tokens=n).deltas()[0]["delta"]["content"] is None, differs=FIRST)
    more(f"chat-stream-{n}-text", f"the same -> the pieces make the whole answer of {n} tokens",
         lambda s, n=n: s.same(s.chat(stream=True, max_tokens=n, ignore_eos=True), s.chat(max_tokens=n, ignore_eos=True)))
case("chat-openai-package", "what the openai package sends, seed and temperature included -> choices with a message", lambda s: s.chat(seed=42, temperature=0.8).message["content"])
case("chat-template", "/apply-template -> the prompt that chat would get",
     lambda s: s.complete((p := s.call("/apply-template", {"messages": [SYSTEM, USER]})["prompt"])).text == s.chat().text and "Book" in p and p.endswith("assistant\n"))
more("chat-template-tokens", "the same -> as many tokens as the chat counts",
     lambda s: len(s.ids(s.call("/apply-template", {"messages": [SYSTEM, USER]})["prompt"])) == s.chat().usage["prompt_tokens"])
for name, content in (("text", "Whill"), ("parts", [{"type": "text", "text": "Wh"}, {"type": "text", "text": "ill"}])):
    case(f"chat-prefill-{name}", f"the last message is the assistant's, as {name} -> the prompt ends with it",
         lambda s, c=content: s.call("/apply-template", {"messages": [USER, {"role": "assistant", "content": c}]})["prompt"].endswith("Whill"),
         differs="vLLM's and OpenAI's meaning: a new turn begins; continue_final_message: true asks for the other")
more("chat-prefill-asked", "the same with continue_final_message -> the prompt ends with that message",
     lambda s: s.call("/apply-template", {"messages": [USER, {"role": "assistant", "content": "Whill"}], "continue_final_message": True})["prompt"].endswith("Whill"))
for name, format, good in (("object-const", {"type": "json_object", "schema": {"const": "42"}}, '"42"'), ("schema-const", {"type": "json_schema", "json_schema": {"schema": {"const": "foooooo"}}}, '"foooooo"')):
    case(f"chat-format-{name}", f"response_format {json.dumps(format)} -> {good}", lambda s, format=format, good=good: s.plain(response_format=format).text == good)
case("chat-format-items-list", "a schema whose items are a list, as in old drafts -> a list", lambda s: s.plain(response_format={"type": "json_object", "schema": {"items": [{"type": "integer"}]}}, temperature=1).answered,
     differs="400 that says what it is called now, prefixItems: drafts before 2020 spelled it so, and others mean something else by it")
more("chat-format-items", "a schema of a list with `prefixItems` of integers -> a list", lambda s: s.plain(
    response_format={"type": "json_object", "schema": {"type": "array", "prefixItems": [{"type": "integer", "maximum": 99, "minimum": 0}], "items": False}}).text.startswith("["))
case("chat-format-object", "json_object -> begins with a brace", lambda s: s.plain(response_format={"type": "json_object"}).text.startswith("{"))
for name, format in (("sound", {"type": "sound"}), ("number", {"type": "json_object", "schema": 123}), ("type-number", {"type": "json_object", "schema": {"type": 123}}),
                     ("type-hiccup", {"type": "json_object", "schema": {"type": "hiccup"}})):
    case(f"chat-format-bad-{name}", f"response_format {json.dumps(format)} -> 400", lambda s, format=format: s.chat(response_format=format).refused())
case("chat-json-schema", "json_schema in the body -> obeyed", lambda s: s.plain(json_schema={"const": "42"}).text == '"42"')
more("chat-json-schema-stream", "the same as a stream -> obeyed", lambda s: s.plain(json_schema={"const": "42"}, stream=True).text == '"42"')
case("chat-grammar", "a grammar of five a -> aaaaa", lambda s: s.plain("Does it matter?", grammar='root ::= "a"{5,5}').text == "aaaaa")
more("chat-grammar-stream", "the same as a stream -> aaaaa", lambda s: s.plain("Does it matter?", grammar='root ::= "a"{5,5}', stream=True).text == "aaaaa")
for name, messages in (("null", None), ("string", "string"), ("number", [123]), ("empty", [{}]), ("role-number", [{"role": 123}]), ("content-number", [{"role": "system", "content": 123}]),
                       ("second-empty", [{"role": "system", "content": "test"}, {}])):
    case(f"chat-messages-bad-{name}", f"messages {json.dumps(messages)} -> an error of the client's", lambda s, m=messages: s.chat(messages=m).refused())
case("chat-two-answers-last", "two messages of the assistant at the end -> an error",
     lambda s: s.chat(messages=[USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]).refused(),
     differs="the template renders them, and nothing is prefilled unless it is asked for, so nothing is ambiguous")
case("chat-timings", "timings_per_token in a stream with usage -> timings beside it",
     lambda s: (t := s.chat(stream=True, stream_options={"include_usage": True}, timings_per_token=True, max_tokens=10).events[-1]["timings"])["predicted_n"] <= 10
     and t["prompt_per_second"] > 0 and t["predicted_per_second"] > 0)
also("chat-timings-first", "the same -> no timings in the first event", lambda s: (r := s.chat(stream=True, timings_per_token=True)).streamed and "timings" not in r.events[0])
also("chat-timings-null", "the same -> the content null in it", lambda s: s.chat(stream=True, timings_per_token=True).deltas()[0]["delta"]["content"] is None, differs=FIRST)
case("chat-logprobs", "10 likeliest, 5 tokens -> their texts make the answer", lambda s: (r := s.chat(max_tokens=5, logprobs=True, top_logprobs=10)) and len(p := r.choice["logprobs"]["content"]) == 5
     and "".join(t["token"] for t in p) == r.text and all(t["logprob"] <= 0 and t["bytes"] and len(t["top_logprobs"]) == 10 for t in p))
case("chat-logprobs-stream", "the same as a stream -> the same texts and numbers",
     lambda s: (r := s.chat(max_tokens=5, logprobs=True, top_logprobs=10, stream=True)) and (p := [t for c in r.deltas() if c["logprobs"] for t in c["logprobs"]["content"]])
     and "".join(t["token"] for t in p) == r.text and [t["logprob"] for t in p] == [t["logprob"] for t in s.chat(max_tokens=5, logprobs=True, top_logprobs=10).choice["logprobs"]["content"]])
also("chat-logprobs-stream-first", "the same -> the first delta has the content null", lambda s: s.chat(max_tokens=5, logprobs=True, top_logprobs=10, stream=True).deltas()[0]["delta"]["content"] is None,
     differs=FIRST)
case("chat-logit-bias", "the tokens of an answer forbidden -> none of them comes", lambda s: (t := set(s.chat(return_token_ids=True, max_tokens=30).choice["token_ids"]))
     and not t & set(s.chat(return_token_ids=True, max_tokens=30, logit_bias={str(i): -100 for i in t}).choice["token_ids"]))
for stream in (False, True):
    case(f"chat-context-{stream}", "120 messages that do not fit -> 400 with the tokens of the prompt and of the context",
         lambda s, stream=stream: (r := s.chat(messages=[SYSTEM, {**USER, "content": "What is the best book? " * 9}] * 60, stream=stream)).refused() and r.error["n_prompt_tokens"] > r.error["n_ctx"] == 4096)
    also(f"chat-context-{stream}-type", "the same -> the error's type is exceed_context_size_error", lambda s, stream=stream: s.chat("long " * 5000, stream=stream).error["type"] == "exceed_context_size_error",
         differs='OpenAI\'s: type "invalid_request_error", code "context_length_exceeded", which its clients look for')
case("chat-progress", "return_progress in a stream -> events that say how much of the prompt is done", lambda s: "prompt_progress" in s.chat("This is a test " * 30, stream=True, return_progress=True).raw)
case("chat-progress-cached", "the same prompt again -> the progress begins with what was found in the cache, and ends with the whole",
     lambda s: (r := [s.chat("Progress of this test " * 30, stream=True, return_progress=True) for _ in range(2)][1]) and (p := [e["prompt_progress"] for e in r.events if "prompt_progress" in e])
     and p[0]["cache"] == p[0]["processed"] > 0 and p[-1]["processed"] == p[-1]["total"])
case("chat-choices", "n 2 -> two messages of the assistant, both cut by length", lambda s: [(c["message"]["role"], c["finish_reason"]) for c in s.chat(n=2, temperature=1).choices] == [("assistant", "length")] * 2)

case, also, more = source("llama.cpp", "test_template.py")
TOOL = {"type": "function", "function": {"name": "test", "description": "", "parameters": {"type": "object", "properties": {"success": {"type": "boolean", "const": True}}, "required": ["success"]}}}
for name, tools in (("null", None), ("none", []), ("one", [TOOL])):
    case(f"template-thinking-{name}", f"Qwen3's template, tools {name} -> ends where the assistant begins",
         lambda s, t=tools: s.call("/apply-template", {"messages": [USER], "tools": t})["prompt"].endswith("<|im_start|>assistant\n"))
    case(f"template-no-thinking-{name}", f"the same without thinking, tools {name} -> ends with empty thoughts",
         lambda s, t=tools: s.call("/apply-template", {"messages": [USER], "tools": t, "chat_template_kwargs": {"enable_thinking": False}})["prompt"].endswith("<think>\n\n</think>\n\n"))
for add in (False, True):
    case(f"template-generation-prompt-{add}", f"add_generation_prompt {add} -> the assistant's turn is " + ("begun" if add else "not begun"),
         lambda s, add=add: ("assistant" in s.call("/apply-template", {"messages": [USER], "add_generation_prompt": add})["prompt"]) is add)

# ---- vLLM -----------------------------------------------------------------------------------------------------

case, also, more = source("vLLM", "openai/chat_completion/test_chat.py")
case("chat-no-logprobs", "logprobs false -> none", lambda s: s.chat(logprobs=False).choice["logprobs"] is None)
for n in (0, 5):
    case(f"chat-logprobs-{n}", f"top_logprobs {n} -> {n} each", lambda s, n=n: all(len(t["top_logprobs"]) == n for t in s.chat(logprobs=True, top_logprobs=n).choice["logprobs"]["content"]))
case("chat-logprobs-too-many", "top_logprobs 21 in a stream, 30 without -> 400 each, and the server answers on",
     lambda s: s.chat(logprobs=True, top_logprobs=21, stream=True).refused() and s.chat(logprobs=True, top_logprobs=30).refused() and s.chat().ok)
for n in (1, 0, -1, None):
    case(f"chat-prompt-logprobs-{n}", f"prompt_logprobs {n} -> " + ("400" if n == -1 else "none" if n is None else "a list"),
         lambda s, n=n: (r := s.chat(messages=TALK, **({} if n is None else {"prompt_logprobs": n}))) and (r.refused() if n == -1 else r.ok and r.text and r.body.get("prompt_logprobs") is None if n is None
                                                                                                          else len(r["prompt_logprobs"]) == r.usage["prompt_tokens"]))
case("chat-prompt-logprobs-more", "prompt_logprobs 2 instead of 1 -> one more for a token", lambda s: all(
    len(b) - len(a) == 1 or len(a) - 1 <= len(b) <= 3 for a, b in zip(s.chat(messages=TALK, prompt_logprobs=1)["prompt_logprobs"][1:], s.chat(messages=TALK, prompt_logprobs=2)["prompt_logprobs"][1:], strict=True)))
case("chat-session", "two turns, the first answer given back -> both answered",
     lambda s: (a := s.chat(max_tokens=5)).ok and s.chat(messages=[SYSTEM, USER, {"role": "assistant", "content": a.text}, {"role": "user", "content": "in json"}]).ok)
also("chat-session-usage", "max_completion_tokens 5 -> one choice, cut by length, 5 and a total that adds up",
     lambda s: (u := (r := s.chat(max_tokens=None, max_completion_tokens=5, logprobs=True, top_logprobs=5)).usage)["completion_tokens"] == 5 and u["total_tokens"] == 5 + u["prompt_tokens"]
     and len(r.choices) == 1 and r.finish == "length" and r.message["role"] == "assistant")
case("chat-vllm-stream", "a stream -> one end, the whole text", lambda s: (r := s.chat(stream=True, max_tokens=10)).text == s.chat(max_tokens=10).text and r.finishes() == ["length"] and r.done)
also("chat-vllm-stream-last", "a stream -> the event that ends it has content", lambda s: s.chat(stream=True).deltas()[-1]["delta"].get("content"),
     differs="the end is an event of its own, as OpenAI and llama-server send it (chat-stream-end-empty)")
case("chat-usage-none", "include_usage false -> no usage", lambda s: (r := s.chat(stream=True, stream_options={"include_usage": False})).streamed and all(e.get("usage") is None for e in r.events))
also("chat-usage-end", "include_usage -> once, at the end, without choices",
     lambda s: (r := s.chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": False})).events[-1]["choices"] == []
     and [bool(e.get("usage")) for e in r.events].count(True) == 1)
also("chat-usage-each", "continuous_usage_stats with min_tokens -> grows to max_tokens",
     lambda s: (n := [e["usage"]["completion_tokens"] for e in s.chat(stream=True, max_tokens=10, min_tokens=10, stream_options={"include_usage": True, "continuous_usage_stats": True}).events])
     == sorted(n) and n[-1] == 10)
also("chat-no-stream-options", "stream_options.include_usage null and true without a stream -> 400", lambda s: all(s.chat(stream=False, stream_options={"include_usage": v}).refused() for v in (None, True)))
also("chat-usage-strings", "include_usage false -> the content of every event is a string", lambda s: (r := s.chat(stream=True, stream_options={"include_usage": False})).streamed and all(isinstance(c["delta"].get("content"), str) for c in r.deltas()),
     differs="the last event has none (chat-vllm-stream-last)")
case("chat-choice", "structured_outputs.choice twice in a talk -> one of them each time",
     lambda s: (c := ["Python", "Rust", "Go"]) and (a := s.plain(structured_outputs={"choice": c}, temperature=0.7).text) in c
     and s.plain(messages=[USER, {"role": "assistant", "content": a}, USER], structured_outputs={"choice": c}).text in c)
case("chat-type-error", "structured_outputs.regex that is an object -> 400", lambda s: s.chat(structured_outputs={"regex": {"1": "Python"}}).refused())
case("chat-choice-logprobs", "a choice with log probabilities -> none below -9999",
     lambda s: all(t["logprob"] >= -9999 for x in s.plain(structured_outputs={"choice": ["Python", "Rust"]}, logprobs=True, top_logprobs=5).choice["logprobs"]["content"] for t in x["top_logprobs"]))
case("chat-vllm-format-object", "response_format json_object, twice -> an object each time",
     lambda s: all(isinstance(json.loads(s.plain(response_format={"type": "json_object"}, logit_bias={str(s.ids("}")[0]): 100}).text), dict) for _ in range(2)))
case("chat-format-text", "response_format text -> any text", lambda s: s.same(s.chat(response_format={"type": "text"}), s.chat()))
case("chat-extra-field", "a field in a message that nobody knows -> ignored", lambda s: s.same(s.chat(messages=[{**USER, "extra_field": "0"}]), s.chat(messages=[USER])))
case("chat-content-parts", "content in one part -> as a string", lambda s: s.same(s.chat(messages=[{"role": "user", "content": [{"type": "text", "text": USER["content"]}]}]), s.chat(messages=[USER])))
case("chat-custom-role", "a role of one's own -> answered", lambda s: s.chat(messages=[{"role": "my-custom-role", "content": "x"}]).answered,
     differs="400: Qwen3's template drops a message of an unknown role in silence; OpenAI refuses it, too")
case("chat-seed", "seeds -2^63 - 1 and 2^63 -> 400 that names it", lambda s: all(s.chat(seed=seed).refused("seed") for seed in (-2**63 - 1, 2**63)))
more("chat-seed-lowest", "seed -2^63 -> taken", lambda s: s.chat(seed=-2**63).answered)
case("chat-n-3", "n 3 -> three with their indices, not all alike", lambda s: (r := s.chat(n=3, temperature=0.9, max_tokens=20)) and [c["index"] for c in r.choices] == [0, 1, 2]
     and len({c["message"]["content"] for c in r.choices}) > 1)
case("chat-n-2-stream", "n 2 as a stream -> text for both", lambda s: all((t := s.chat(n=2, temperature=0.7, max_tokens=15, stream=True).texts()).values()) and sorted(t) == [0, 1])
case("chat-n-seed", "n 2 with a seed, twice -> the same two", lambda s: (a := [c["message"] for c in s.chat(n=2, temperature=0.8, seed=42).choices]) == [c["message"] for c in s.chat(n=2, temperature=0.8, seed=42).choices]
     and len(a) == 2)
case("chat-n-1", "n 1 -> one, index 0", lambda s: [c["index"] for c in s.chat(n=1).choices] == [0])
case("chat-n-various", "n 1, 2, 5 and 10 -> so many", lambda s: [len(s.chat(n=n, temperature=1, max_tokens=2).choices) for n in (1, 2, 5, 10)] == [1, 2, 5, 10])

case, also, more = source("vLLM", "openai/chat_completion/test_chat_completion.py")
IDS = dict(max_tokens=1, return_token_ids=True)
case("chat-truncate-right", "truncate_prompt_tokens 4, right -> the first 4 of the prompt", lambda s: s.chat(**IDS, truncate_prompt_tokens=4, truncation_side="right")["prompt_token_ids"] == s.chat(**IDS)["prompt_token_ids"][:4])
also("chat-truncate-left", "the same, left -> the last 4", lambda s: s.chat(**IDS, truncate_prompt_tokens=4, truncation_side="left")["prompt_token_ids"] == s.chat(**IDS)["prompt_token_ids"][-4:])
for name, value in (("json", {"type": "object", "properties": {"foo": "bar"}}), ("regex", "[.*"), ("grammar", "root ::= nowhere"), ("grammar", "")):
    case(f"chat-bad-{name}{'' if value else '-empty'}", f"structured_outputs.{name} that is wrong -> 400", lambda s, name=name, value=value: s.chat(structured_outputs={name: value}).refused())

case, also, more = source("vLLM", "openai/chat_completion/test_token_in_token_out.py")
case("chat-ids-in", "prompt_token_ids from /tokenize and no messages -> the answer to the messages",
     lambda s: (t := s.call("/tokenize", {"messages": [USER]})["tokens"]) and (r := s.chat(messages=[], prompt_token_ids=t, return_token_ids=True))["prompt_token_ids"] == t
     and r.text == s.chat(messages=[USER]).text)
case("chat-ids-in-template", "the same with add_generation_prompt -> 400", lambda s: s.chat(messages=[], prompt_token_ids=[1, 2], add_generation_prompt=True).refused())

case, also, more = source("vLLM", "openai/basic/test_chat_echo.py")
SAYING = [{"role": "user", "content": "A saying"}, {"role": "assistant", "content": "An apple a day, keeps"}]
for echo in (True, False):
    case(f"chat-echo-{echo}", f"a message gone on with, echo {echo} -> the answer has it: {echo}",
         lambda s, echo=echo: ("An apple a day, keeps" in s.chat(messages=SAYING, echo=echo, continue_final_message=True, add_generation_prompt=False).text) is echo)
case("chat-echo-prompt-logprobs", "prompt_logprobs -1 -> all of the vocabulary, for each token of the prompt", lambda s: len(s.chat(prompt_logprobs=-1)["prompt_logprobs"][1]) == 640,
     differs="400, as vLLM without --max-logprobs -1: 20 at most")
case("chat-echo-top-logprobs", "top_logprobs -1 -> all of the vocabulary, for each token", lambda s: len(s.chat(logprobs=True, top_logprobs=-1).choice["logprobs"]["content"][0]["top_logprobs"]) == 640,
     differs="the same")
more("chat-echo-stream", "the same as a stream -> the same text", lambda s: s.same(*[s.chat(messages=SAYING, echo=True, continue_final_message=True, add_generation_prompt=False, stream=x) for x in (True, False)]))

case, also, more = source("vLLM", "openai/basic/test_chat_template.py")
more("chat-continue-and-add", "continue_final_message with add_generation_prompt -> 400", lambda s: s.chat(messages=SAYING, continue_final_message=True, add_generation_prompt=True).refused())
more("chat-own-template", "a chat_template in the request of a server that trusts none -> 400", lambda s: s.chat(chat_template="{{ messages }}").refused("chat_template"))

case, also, more = source("vLLM", "openai/basic/test_return_token_ids.py")
case("chat-token-ids", "return_token_ids with tools and logprobs -> those of the prompt decode to the messages",
     lambda s: all(x["content"] in s.call("/detokenize", {"tokens": (r := s.chat(return_token_ids=True, tools=[TOOL], logprobs=True))["prompt_token_ids"]})["prompt"] for x in (SYSTEM, USER))
     and len(r.choice["token_ids"]) == 8)
also("chat-token-ids-off", "false -> neither", lambda s: (r := s.chat(return_token_ids=False)).text and "prompt_token_ids" not in r.body and "token_ids" not in r.choice)
case("chat-token-ids-stream", "as a stream -> the prompt's once and first, the answer's add up",
     lambda s: (r := s.chat(return_token_ids=True, stream=True)).events[0]["prompt_token_ids"] and not [e for e in r.events[1:] if "prompt_token_ids" in e]
     and [i for c in r.deltas() for i in c["token_ids"]] == s.chat(return_token_ids=True).choice["token_ids"])

case, also, more = source("vLLM", "openai/basic/test_chat_logit_bias_validation.py")
case("chat-bias-valid", "the last id of the vocabulary -> taken", lambda s: s.chat(logit_bias={"639": 1.0}).answered)
case("chat-bias-invalid", "an id behind it -> 400 with the id and the size of the vocabulary", lambda s: s.chat(logit_bias={"641": 1.0}).refused("641", "640"))
case("chat-bias-key", "a key that is no id -> 400 with it and the field's name", lambda s: s.chat(logit_bias={"not_a_token_id": 50}).refused("not_a_token_id", "logit_bias"))
case("chat-bias-value", "a bias that is no number -> 400 with the field's name", lambda s: s.chat(logit_bias={"1": "not_a_number"}).refused("logit_bias"))
case("chat-bias-keys", "two keys that are no ids -> 400 with both", lambda s: s.chat(logit_bias={"bad1": 50, "bad2": 20}).refused("bad1", "bad2"))

case, also, more = source("vLLM", "openai/chat_completion/test_chat_stop_token_ids_validation.py")
case("chat-stop-ids-valid", "the last id of the vocabulary as a stop -> taken", lambda s: s.chat(stop_token_ids=[639]).answered)
case("chat-stop-ids-invalid", "an id behind it -> 400 with the id and the size", lambda s: s.chat(stop_token_ids=[641]).refused("641", "640"))
case("chat-stop-ids-negative", "-1 -> 400", lambda s: s.chat(stop_token_ids=[-1]).refused())

case, also, more = source("vLLM", "openai/chat_completion/test_non_object_body_validation.py")
for name, body in (("text", b"this is not valid json{{{"), ("list", b'["not", "an", "object"]'), ("number", b"42"), ("null", b"null")):
    case(f"chat-body-{name}", f"a body that is {name} -> 400, no 500", lambda s, body=body: s.call("/v1/chat/completions", body).refused())
case("chat-salt-empty", "cache_salt empty -> 400 that names it", lambda s: s.chat(cache_salt="").refused("cache_salt"))
more("chat-salt", "a salt -> answered, and nothing found in the cache of others", lambda s: s.chat().ok and s.chat(cache_salt="x1").usage["prompt_tokens_details"]["cached_tokens"] == 0)

case, also, more = source("vLLM", "openai/chat_completion/test_include_reasoning.py")


def thoughts(s, **fields):
    """The begin of thoughts is made certain, their end likely, and neither comes twice: random weights have thoughts and text."""
    ids = {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 7}
    return s.chat("Hi", **{"max_tokens": 200, "temperature": 1, "seed": 1, "repetition_penalty": 100, "logit_bias": ids, **fields})


def reasoning(answer):
    if answer.events:
        return "".join(c["delta"].get("reasoning") or "" for c in answer.deltas())
    return answer.message.get("reasoning") or ""


for stream in (False, True):
    case(f"reasoning-included-{stream}", f"include_reasoning true, stream {stream} -> thoughts and content, each in its place",
         lambda s, stream=stream: reasoning(r := thoughts(s, stream=stream, include_reasoning=True)) and r.text and "think>" not in r.text[:20])
    case(f"reasoning-left-out-{stream}", f"include_reasoning false, stream {stream} -> the content alone",
         lambda s, stream=stream: (r := thoughts(s, stream=stream, include_reasoning=False)).ok and not reasoning(r) and r.text and r.text == thoughts(s).text)
case("reasoning-counted", "include_reasoning false -> the tokens of thoughts are in the usage", lambda s: thoughts(s, include_reasoning=False).usage["completion_tokens_details"]["reasoning_tokens"] > 0)
case("reasoning-default", "not asked -> thoughts", lambda s: reasoning(thoughts(s)))

case, also, more = source("vLLM", "openai/chat_completion/test_chat_with_tool_reasoning.py")
more("reasoning-both-names", "thoughts -> as reasoning and as reasoning_content", lambda s: (m := thoughts(s).message)["reasoning"] == m["reasoning_content"] != "")

case, also, more = source("vLLM", "openai/chat_completion/test_reasoning_effort.py")
for effort in ("low", "medium", "high"):
    case(f"effort-{effort}", f"reasoning_effort {effort} -> the prompt of a model that thinks", lambda s, effort=effort: s.chat(reasoning_effort=effort, return_token_ids=True)["prompt_token_ids"]
         == s.chat(return_token_ids=True)["prompt_token_ids"])
case("effort-none-prompt", "none -> the prompt of enable_thinking: false", lambda s: s.chat(reasoning_effort="none", return_token_ids=True)["prompt_token_ids"]
     == s.chat(chat_template_kwargs={"enable_thinking": False}, return_token_ids=True)["prompt_token_ids"])
case("effort-not-over-kwargs", "none, and enable_thinking: true in chat_template_kwargs -> thinks", lambda s: s.chat(reasoning_effort="none", chat_template_kwargs={"enable_thinking": True}, return_token_ids=True)["prompt_token_ids"]
     == s.chat(return_token_ids=True)["prompt_token_ids"])
case("effort-keeps-kwargs", "none beside other chat_template_kwargs -> both hold", lambda s: s.chat(reasoning_effort="none", chat_template_kwargs={"custom_key": "value"}, return_token_ids=True)["prompt_token_ids"]
     == s.chat(chat_template_kwargs={"enable_thinking": False}, return_token_ids=True)["prompt_token_ids"])
more("effort-wrong", "a word that is no effort -> 400", lambda s: s.chat(reasoning_effort="enormous").refused("reasoning_effort"))

case, also, more = source("vLLM", "openai/chat_completion/test_usage_policy.py")
case("chat-usage-always", "no stream -> usage without asking", lambda s: (u := s.chat().usage)["completion_tokens"] == 8 and u["prompt_tokens"] > 0)
case("chat-usage-not-in-streams", "a stream that does not ask -> no usage", lambda s: (r := s.chat(stream=True)).streamed and all(e.get("usage") is None for e in r.events))
case("chat-usage-asked", "a stream with include_usage -> usage in an event without choices", lambda s: any(e.get("usage", {}).get("prompt_tokens") and not e["choices"] for e in s.chat(
    stream=True, stream_options={"include_usage": True}).events[-1:]))

case, also, more = source("vLLM", "openai/chat_completion/test_logprob_token_ids.py")
IDS_ASKED = [101, 202, 303]
case("chat-logprob-ids", "logprob_token_ids -> the log probabilities of these", lambda s: len({int(t["token"].removeprefix("token_id:")) for t in s.chat(
    max_tokens=1, logprobs=True, top_logprobs=3, logprob_token_ids=IDS_ASKED, return_tokens_as_token_ids=True).choice["logprobs"]["content"][0]["top_logprobs"]} & set(IDS_ASKED)) >= 2,
     differs="those of the likeliest alone; the field is ignored and counted")
case("chat-logprob-ids-none", "without the field -> the 5 likeliest", lambda s: len(t := s.chat(max_tokens=1, logprobs=True, top_logprobs=5).choice["logprobs"]["content"][0]["top_logprobs"]) == 5
     and all(x["logprob"] <= 0 for x in t))

case, also, more = source("vLLM", "openai/chat_completion/test_usage_prompt_tokens.py")
more("chat-prompt-tokens", "a chat -> prompt tokens as /tokenize counts them", lambda s: s.chat().usage["prompt_tokens"] == s.call("/tokenize", {"messages": [SYSTEM, USER]})["count"])

case, also, more = source("vLLM", "openai/chat_completion/test_system_fingerprint_none.py")
more("chat-fingerprint-in-stream", "a stream -> the fingerprint of the whole answer in every event", lambda s: {e["system_fingerprint"] for e in s.chat(stream=True).events} == {s.chat()["system_fingerprint"]})

case, also, more = source("vLLM", "openai/chat_completion/test_chat_error.py")
for what, part in (("image", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}), ("audio", {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}})):
    more(f"chat-{what}", f"an {what} for a model of text -> 400 that says so", lambda s, part=part: s.chat(messages=[{"role": "user", "content": [part]}]).refused("text"))
for name, content in (("text", "You are a helpful assistant."), ("parts", [{"type": "text", "text": "You are a helpful assistant."}])):
    case(f"chat-system-{name}", f"a system message of {name} -> taken", lambda s, c=content: s.same(s.chat(messages=[{"role": "system", "content": c}, USER]), s.chat(messages=[{"role": "system", "content": "You are a helpful assistant."}, USER])))
case("chat-format-no-schema", "response_format json_schema without one -> 400", lambda s: s.chat(response_format={"type": "json_schema"}).refused("json_schema"))
more("chat-wrong-model", "another model -> 404 that names it", lambda s: s.chat(model="nope").refused("nope", status=404))
for name, value in (("temperature", 3), ("top_p", -0.1), ("n", -1), ("max_tokens", -2), ("stop", 5), ("messages", []), ("response_format", "x"), ("stream", "yes"), ("logprobs", 1), ("tools", {}),
                    ("presence_penalty", "a"), ("frequency_penalty", 9), ("repetition_penalty", -1), ("min_p", 1.5), ("top_k", 0.5)):
    more(f"chat-refused-{name}", f"{name} {json.dumps(value)} -> 400 that names the field", lambda s, name=name, value=value: (r := s.chat(**{name: value})).refused() and r.error["param"].startswith(name))

case, also, more = source("vLLM", "openai/chat_completion/test_serving_chat.py")


def small(s, **fields):
    """A chat in a context of 128 tokens that nothing but its end stops."""
    return s.call("/v1/chat/completions", {"messages": [USER], "temperature": 0, "ignore_eos": True, **fields}, server=s.start("--max-model-len", 128))


def crowd(s, stream):
    """More chats at once than run and wait."""
    server = s.start("--max-num-seqs", 1, "--max-waiting-requests", 1)
    body = {"messages": [USER], "temperature": 0, "ignore_eos": True, "max_tokens": 2000, "stream": stream}
    return s.together(*[lambda: s.call("/v1/chat/completions", body, server=server)] * 8)


case("chat-first-name", "no model named -> the answer has the first name of the model", lambda s: s.call(
    "/v1/chat/completions", {"messages": [USER], "max_tokens": 2}, server=s.start("--served-model-name", "own", "--served-model-name", "alias"))["model"] == "own")
also("chat-first-name-alias", "another of its names, or an empty one -> the first, too", lambda s: {s.call("/v1/chat/completions", {"messages": [USER], "max_tokens": 2, "model": m}, server=s.start(
    "--served-model-name", "own", "--served-model-name", "alias"))["model"] for m in ("alias", "")} == {"own"}, differs="the name that was asked for, as llama-server; an empty one is nobody's: 404")
for stream in (False, True):
    case(f"chat-overload-{stream}", f"more requests than may wait, stream {stream} -> refused with a status of its own, before a stream begins",
         lambda s, stream=stream: (answers := crowd(s, stream)) and {r.status for r in answers} == {200, 429} and all(r.error["type"] == "rate_limit_error" and not r.events for r in answers if not r.ok))
case("chat-max-tokens", "no max_tokens -> what the context has left; 10 -> 10", lambda s: (u := small(s).usage)["total_tokens"] == 128 and u["prompt_tokens"] > 0 and small(s, max_tokens=10).usage["completion_tokens"] == 10)
also("chat-max-tokens-bound", "a server whose operator bounds answers to 10 tokens -> no more than that", lambda s: s.call("/v1/chat/completions", {"messages": [USER], "ignore_eos": True, "max_tokens": 15}, server=s.taking(
    "--override-generation-config", '{"max_new_tokens": 10}')).usage["completion_tokens"] == 10, differs="no option bounds the answers of all: clients name their max_tokens")
case("chat-max-tokens-truncated", "truncate_prompt_tokens 5, no max_tokens -> what the context has left behind these; -1 -> behind the whole prompt",
     lambda s: (u := small(s, truncate_prompt_tokens=5).usage)["prompt_tokens"] == 5 and u["completion_tokens"] == 123 and small(s, truncate_prompt_tokens=-1).usage == {**small(s).usage} != u)
case("chat-serving-truncate", "truncate_prompt_tokens 4, right and left -> the first and the last 4 of the prompt", lambda s: (p := small(s, max_tokens=1, return_token_ids=True)["prompt_token_ids"]) and len(p) > 4
     and [small(s, max_tokens=1, return_token_ids=True, truncate_prompt_tokens=4, truncation_side=side)["prompt_token_ids"] for side in ("right", "left")] == [p[:4], p[-4:]])
case("chat-ids-and-max-tokens", "ids that fit with a max_tokens that does not -> 400", lambda s: small(s, messages=[], prompt_token_ids=list(range(120)), max_tokens=10).refused("context"))
case("chat-ids-fill-context", "as many ids as the context has tokens -> 400", lambda s: small(s, messages=[], prompt_token_ids=list(range(128)), max_tokens=1).refused("context"))
case("chat-serving-salt", "no cache_salt -> found in the cache; a new one -> not", lambda s: s.chat("salt of a chat " * 9).ok and s.chat("salt of a chat " * 9).usage["prompt_tokens_details"]["cached_tokens"] > 0
     and s.chat("salt of a chat " * 9, cache_salt="test_salt").usage["prompt_tokens_details"]["cached_tokens"] == 0)
