"""/v1/responses, without state."""
import json

from cases import source
from cases.messages import pick

BOOK = [{"role": "system", "content": "Book"}, {"role": "user", "content": "What is the best book"}]
TOOL = {"type": "function", "name": "get_weather", "description": "x", "strict": True,
        "parameters": {"type": "object", "properties": {"latitude": {"type": "integer", "minimum": 0, "maximum": 90}}, "required": ["latitude"], "additionalProperties": False}}
QUIET = {"reasoning": {"effort": "none"}, "max_output_tokens": 300, "temperature": 1, "seed": 2}
USE = {**QUIET, "tools": [TOOL], "parallel_tool_calls": False}
BEGINS = {"response.completed": "response.created", "response.incomplete": "response.created", "response.output_item.done": "response.output_item.added",
          "response.content_part.done": "response.content_part.added"}


def output(answer, kind):
    return next(o for o in answer["output"] if o["type"] == kind)


def ends_what_it_began(answer):
    """Every event that ends something ends what was begun last."""
    open = []
    for kind in answer.types():
        if kind in BEGINS.values():
            open.append(kind)
        elif kind in BEGINS:
            assert open.pop() == BEGINS[kind], kind
    return not open


def deltas(answer, kind):
    return "".join(e["delta"] for e in answer.events if e["type"] == kind)


def as_text(schema):
    return {"text": {"format": {"type": "json_schema", "name": "test", "schema": schema}}}


def respond(s, input="Say hello", **fields):
    return s.call("/v1/responses", {"input": input, "temperature": 0, "max_output_tokens": 8, **fields})


case, more = source("llama.cpp", "test_compat_oai_responses.py")
case("responses-schema", "text.format json_schema -> the text obeys", lambda s: respond(s, **QUIET, **as_text({"const": "foooooo"})).text == '"foooooo"')
case("responses-json", "text.format json_object -> begins with a brace", lambda s: respond(s, **{**QUIET, "max_output_tokens": 20}, text={"format": {"type": "json_object"}}).text.startswith("{"))
case("responses-text", "text.format text -> any text", lambda s: respond(s, text={"format": {"type": "text"}}).ok)
case("responses-no-schema", "text.format json_schema without a schema -> 400", lambda s: respond(s, text={"format": {"type": "json_schema", "name": "test"}}).refused())
case("responses-ids", "a list of messages -> ids that begin with resp_ and msg_", lambda s: (r := respond(s, BOOK, temperature=0.8))["id"].startswith("resp_") and output(r, "message")["id"].startswith("msg_"))
case("responses-stream-ids", "a stream -> the id of the response in all its events", lambda s: len({e["response"]["id"] for e in respond(s, BOOK, stream=True).events if "response" in e}) == 1)
case("responses-stream-item-ids", "a stream -> the id of the message in all events of it",
     lambda s: len({e.get("item_id") or e["item"]["id"] for e in respond(s, BOOK, stream=True).events if "item_id" in e or "item" in e}) == 1)
case("responses-stream-text", "a stream -> its deltas make the text of the response at the end",
     lambda s: (r := respond(s, BOOK, stream=True)).text == "".join(p["text"] for p in r.events[-1]["response"]["output"][0]["content"]) == respond(s, BOOK).text)
case("responses-telemetry", "timings_per_token and return_progress, a model that ends -> prompt_progress in response.in_progress, timings in the deltas and in response.completed",
     lambda s: (r := respond(s, "This is a test" * 10, stream=True, timings_per_token=True, return_progress=True, min_tokens=7, logit_bias={str(s.ids("<|im_end|>")[0]): 100})) and {e["type"] for e in r.events if "prompt_progress" in e} == {"response.in_progress"}
     and all(p["total"] >= p["processed"] >= p["cache"] for e in r.events if (p := e.get("prompt_progress"))) and {e["type"] for e in r.events if "timings" in e} == {
         "response.output_text.delta", "response.completed"} and all({"prompt_per_second", "predicted_per_second"} <= set(e["timings"]) for e in r.events if "timings" in e)
     and r.events[-1]["timings"]["predicted_n"] == 8 and r.events[-1]["response"]["usage"])

case, more = source("vLLM", "openai/responses/test_simple.py")
case("responses-basic", "a model that ends -> completed, no incomplete_details",
     lambda s: (r := respond(s, logit_bias={str(s.ids("<|im_end|>")[0]): 100}))["status"] == "completed" and r["incomplete_details"] is None)
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Be concise."}]}
for name, ids in (("ids", {"id": "msg_1", "status": "completed"}), ("no-ids", {})):
    case(f"responses-history-{name}", f"earlier answers and thoughts, {name} -> answered", lambda s, ids=ids: respond(s, [
        MESSAGE, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Acknowledged."}], **ids}, {"type": "reasoning", "summary": [], "encrypted_content": None, **ids}, MESSAGE]).ok)
case("responses-reasoning-item", "an item of reasoning with text -> answered", lambda s: respond(s, [
    {"type": "message", "content": "Hello.", "role": "user"}, {"type": "reasoning", "id": "lol", "content": [{"type": "reasoning_text", "text": "We need to greet."}], "summary": []}]).ok)
case("responses-second-turn", "the first answer sent back -> answered", lambda s: respond(s, [MESSAGE, {"type": "message", "role": "assistant", "content": [
    {"type": "output_text", "text": respond(s, [MESSAGE]).text}]}, MESSAGE]).ok)
case("responses-stream-consistent", "a stream -> deltas and response.output_text.done say the same",
     lambda s: deltas(r := respond(s, stream=True), "response.output_text.delta") == pick(r, "response.output_text.done")["text"])
LOGPROBS = {"top_logprobs": 3, "include": ["message.output_text.logprobs"]}
case("responses-logprobs", "top_logprobs with include -> log probabilities in every delta, 3 each",
     lambda s: (p := [e["logprobs"] for e in respond(s, stream=True, **LOGPROBS).events if e["type"] == "response.output_text.delta"]) and all(p) and all(
         t["token"] and t["logprob"] <= 0 and len(t["top_logprobs"]) == 3 and all(isinstance(x["logprob"], float) and "token" in x for x in t["top_logprobs"]) for q in p for t in q))
more("responses-logprobs-whole", "the same whole -> those of the deltas, and of a chat",
     lambda s: (p := output(respond(s, **LOGPROBS), "message")["content"][0]["logprobs"]) == [t for e in respond(s, stream=True, **LOGPROBS).events if e["type"] == "response.output_text.delta" for t in e["logprobs"]]
     == s.chat("Say hello", logprobs=True, top_logprobs=3).choice["logprobs"]["content"] and len(p) == 8)
more("responses-logprobs-thoughts", "after thoughts -> the text's tokens alone, whose bytes make it",
     lambda s: (r := respond(s, **LOGPROBS, max_output_tokens=60, temperature=1, seed=1, repetition_penalty=100, logit_bias={str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 7}))
     and output(r, "reasoning")["content"][0]["text"] and (m := output(r, "message")["content"][0])
     and bytes(b for t in m["logprobs"] for b in t["bytes"]).decode(errors="replace").lstrip() == m["text"])
more("responses-raw", "enable_response_messages -> prompt and answer as text and ids, in a stream at its end",
     lambda s: all(m["type"] == "raw_message_tokens" and s.call("/detokenize", {"tokens": m["tokens"]})["prompt"] == m["message"] and len(m["message"]) > 10
                   for r in (respond(s, enable_response_messages=True).body, respond(s, enable_response_messages=True, stream=True).events[-1]["response"])
                   for m in (*r["input_messages"], *r["output_messages"])) and "input_messages" not in respond(s, return_token_ids=True).body)
more("responses-two-rules", "structured_outputs beside a schema in text.format -> 400", lambda s: respond(s, structured_outputs={"regex": "a"}, **as_text({"type": "object"})).refused("structured_outputs.regex"))
more("responses-logprobs-none", "not asked for -> an empty list", lambda s: output(respond(s), "message")["content"][0]["logprobs"] == [])
for stream in (True, False):
    case(f"responses-reasoning-tokens-{stream}", f"thoughts, stream {stream} -> counted in output_tokens_details",
         lambda s, stream=stream: (r := respond(s, stream=stream, max_output_tokens=40, logit_bias={str(s.ids("<think>")[0]): 60}, repetition_penalty=100)).ok
         and (r.events[-1]["response"] if stream else r.body)["usage"]["output_tokens_details"]["reasoning_tokens"] > 0)
case("responses-max", "max_output_tokens reached -> incomplete, and the reason", lambda s: (r := respond(s))["status"] == "incomplete" and r["incomplete_details"]["reason"] == "max_output_tokens")
case("responses-sampling", "top_k, repetition_penalty and seed -> taken", lambda s: respond(s, temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.2, seed=42).text)
case("responses-event-stack", "a stream -> every event that ends something ends what was begun last", lambda s: ends_what_it_began(respond(s, stream=True, tools=[], background=False)))
more("responses-sequence", "a stream -> sequence numbers from 0 without a gap", lambda s: (n := [e["sequence_number"] for e in respond(s, stream=True).events]) == list(range(len(n))))

case, more = source("vLLM", "../v1/entrypoints/openai/responses/test_basic.py")
case("responses-input-text", "a string -> an item of type message at the end", lambda s: respond(s)["output"][-1]["type"] == "message")
case("responses-instructions", "instructions -> as a system message", lambda s: s.same(respond(s, "Hi", instructions="Book"), respond(s, [BOOK[0], {"role": "user", "content": "Hi"}])))
case("responses-chat", "system, user, assistant, user -> answered", lambda s: respond(s, [*BOOK, {"role": "assistant", "content": "15"}, {"role": "user", "content": "Twice?"}]).ok)
case("responses-input-parts", "content as input_text -> as a string", lambda s: s.same(respond(s, [{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}]), respond(s, "Hello!")))

case, more = source("vLLM", "../v1/entrypoints/openai/responses/test_stateful.py")
case("responses-stored", "previous_response_id of an answer -> the talk goes on", lambda s: respond(s, previous_response_id=respond(s, store=True)["id"]).ok,
     differs="400: the server keeps no state; clients send the whole input, as with store: false")
case("responses-background", "background -> the answer later", lambda s: respond(s, background=True, store=True).ok,
     differs="400: the same, the server keeps no state")

case, more = source("vLLM", "openai/responses/test_structured_output.py")
EVENT = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "who": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2}},
         "required": ["name", "who"], "additionalProperties": False}
case("responses-event", "a schema -> an object with what it requires", lambda s: set(json.loads(respond(s, BOOK, **QUIET, **as_text(EVENT)).text)) == {"name", "who"})
more("responses-event-stream", "the same as a stream -> the same text", lambda s: s.same(*[respond(s, BOOK, **QUIET, **as_text(EVENT), stream=x) for x in (False, True)]))

case, more = source("vLLM", "openai/responses/test_function_call.py")
case("responses-call", "tool_choice required -> a function_call with valid arguments", lambda s: "latitude" in json.loads(output(respond(s, **USE, tool_choice="required"), "function_call")["arguments"]))
case("responses-call-auto", "tool_choice auto -> answered", lambda s: respond(s, tools=[TOOL], tool_choice="auto").ok)
case("responses-call-named", "a named tool -> a call of it", lambda s: output(respond(s, **USE, tool_choice={"type": "function", "name": "get_weather"}), "function_call")["name"] == "get_weather")
case("responses-call-cut", "required, and 3 tokens -> no call, incomplete", lambda s: (r := respond(s, **{**USE, "max_output_tokens": 3}, tool_choice="required")) and not [o for o in r["output"] if o["type"] == "function_call"]
     and r["incomplete_details"]["reason"] == "max_output_tokens")
case("responses-call-back", "the call and its output sent back -> answered",
     lambda s: (c := output(respond(s, **USE, tool_choice="required"), "function_call")) and respond(s, [*BOOK, c, {"type": "function_call_output", "call_id": c["call_id"], "output": "20 degrees"}]).text)
case("responses-call-stream", "the same as a stream -> the deltas make the arguments of the item at the end",
     lambda s: deltas(r := respond(s, **USE, tool_choice="required", stream=True), "response.function_call_arguments.delta")
     == next(e["item"] for e in r.events if e["type"] == "response.output_item.done" and e["item"]["type"] == "function_call")["arguments"])
case("responses-call-stack", "the same -> ends what it began", lambda s: ends_what_it_began(respond(s, **USE, tool_choice="required", stream=True)))

case, more = source("vLLM", "openai/responses/test_errors.py")
more("responses-no-input", "no input -> 400", lambda s: s.call("/v1/responses", {}).refused("input"))
more("responses-wrong-model", "another model -> 404", lambda s: respond(s, model="nope").refused("nope", status=404))
for name, value in (("temperature", 5), ("max_output_tokens", 0), ("top_p", 2), ("tools", [{"type": "web_search"}]), ("text", {"format": {"type": "x"}}), ("input", 5)):
    more(f"responses-refused-{name}", f"{name} {json.dumps(value)} -> 400", lambda s, name=name, value=value: respond(s, **{name: value}).refused() if name != "input" else respond(s, value).refused())

case, more = source("vLLM", "openai/responses/test_image.py")
more("responses-image", "an image for a model of text -> 400", lambda s: respond(s, [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]).refused())

case, more = source("vLLM", "openai/responses/test_usage_policy.py")
case("responses-usage", "an answer -> input, output and total tokens", lambda s: (u := respond(s).usage)["total_tokens"] == u["input_tokens"] + u["output_tokens"] and u["output_tokens"] == 8)
case("responses-usage-not-before", "a stream -> no usage before its end", lambda s: not [e for e in respond(s, stream=True).events[:-1] if "response" in e and e["response"]["usage"]])
case("responses-usage-stream", "a stream -> the same at its end", lambda s: respond(s, stream=True).events[-1]["response"]["usage"]["output_tokens"] == 8)
