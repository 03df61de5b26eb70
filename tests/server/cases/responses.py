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


def musing(s):
    """The begin of thoughts is made certain, their end likely, and neither comes twice: random weights have thoughts and text."""
    return {"max_output_tokens": 200, "temperature": 1, "seed": 1, "repetition_penalty": 100, "logit_bias": {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 7}}


def respond(s, input="Say hello", **fields):
    return s.call("/v1/responses", {"input": input, "temperature": 0, "max_output_tokens": 8, **fields})


case, also, more = source("llama.cpp", "test_compat_oai_responses.py")
case("responses-schema", "text.format json_schema -> the text obeys", lambda s: respond(s, **QUIET, **as_text({"const": "foooooo"})).text == '"foooooo"')
case("responses-json", "text.format json_object -> begins with a brace", lambda s: respond(s, **{**QUIET, "max_output_tokens": 20}, text={"format": {"type": "json_object"}}).text.startswith("{"))
case("responses-text", "text.format text -> any text", lambda s: respond(s, text={"format": {"type": "text"}}).answered)
case("responses-no-schema", "text.format json_schema without a schema -> 400", lambda s: respond(s, text={"format": {"type": "json_schema", "name": "test"}}).refused())
case("responses-ids", "a list of messages -> ids that begin with resp_ and msg_", lambda s: (r := respond(s, BOOK, temperature=0.8))["id"].startswith("resp_") and output(r, "message")["id"].startswith("msg_"))
case("responses-stream-ids", "a stream -> the id of the response in all its events",
     lambda s: len(ids := {e["response"]["id"] for e in respond(s, BOOK, stream=True).events if "response" in e}) == 1 and ids.pop().startswith("resp_"))
also("responses-stream-item-ids", "a stream -> the id of the message in all events of it",
     lambda s: len({e.get("item_id") or e["item"]["id"] for e in respond(s, BOOK, stream=True).events if "item_id" in e or "item" in e}) == 1)
also("responses-stream-text", "a stream -> its deltas make the text of the response at the end",
     lambda s: (r := respond(s, BOOK, stream=True)).text == "".join(p["text"] for p in r.events[-1]["response"]["output"][0]["content"]) == respond(s, BOOK).text)
case("responses-telemetry", "timings_per_token and return_progress -> timings and prompt_progress in events", lambda s: "timings" in respond(s, stream=True, timings_per_token=True, return_progress=True).raw)

case, also, more = source("vLLM", "openai/responses/test_simple.py")
case("responses-basic", "a model that ends -> completed, no incomplete_details",
     lambda s: (r := respond(s, logit_bias={str(s.ids("<|im_end|>")[0]): 100}))["status"] == "completed" and r["incomplete_details"] is None)
case("responses-raw-messages", "enable_response_messages -> the prompt and the answer as text and ids, too", lambda s: respond(s, enable_response_messages=True)["input_messages"][0]["tokens"])
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Be concise."}]}
for name, ids in (("ids", {"id": "msg_1", "status": "completed"}), ("no-ids", {})):
    case(f"responses-history-{name}", f"earlier answers and thoughts, {name} -> answered", lambda s, ids=ids: respond(s, [
        MESSAGE, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Acknowledged."}], **ids}, {"type": "reasoning", "summary": [], "encrypted_content": None, **ids}, MESSAGE]).answered)
case("responses-reasoning-item", "an item of reasoning with text -> answered, with reasoning and text", lambda s: [o["type"] for o in respond(s, [
    {"type": "message", "content": "Hello.", "role": "user"}, {"type": "reasoning", "id": "lol", "content": [{"type": "reasoning_text", "text": "We need to greet."}], "summary": []}], **musing(s))["output"]]
     == ["reasoning", "message"])
case("responses-second-turn", "the first answer sent back, with its thoughts, without ids -> answered", lambda s: respond(s, [MESSAGE, {"type": "message", "role": "assistant", "content": [
    {"type": "output_text", "text": respond(s, [MESSAGE]).text}]}, {"type": "reasoning", "summary": [], "encrypted_content": None}, MESSAGE]).answered)
case("responses-stream-consistent", "a stream of a model that ends -> its deltas make the text of response.completed, which comes last",
     lambda s: (r := respond(s, stream=True, reasoning={"effort": "none"}, temperature=1, seed=1, max_output_tokens=300, logit_bias={str(s.ids("<|im_end|>")[0]): 3})).events[-1]["type"] == "response.completed"
     and r.events[-1]["response"]["status"] == "completed"
     and deltas(r, "response.output_text.delta") == "".join(p["text"] for p in output(r.events[-1]["response"], "message")["content"]) == pick(r, "response.output_text.done")["text"] != "")
case("responses-logprobs", "top_logprobs with include -> log probabilities in the deltas", lambda s: "logprob" in next(
    e for e in respond(s, stream=True, top_logprobs=3, include=["message.output_text.logprobs"]).events if e["type"] == "response.output_text.delta")["logprobs"][0])
for stream in (True, False):
    case(f"responses-reasoning-tokens-{stream}", f"thoughts, stream {stream} -> counted in output_tokens_details",
         lambda s, stream=stream: (r := respond(s, stream=stream, max_output_tokens=40, logit_bias={str(s.ids("<think>")[0]): 60}, repetition_penalty=100)).ok
         and (r.events[-1]["response"] if stream else r.body)["usage"]["output_tokens_details"]["reasoning_tokens"] > 0)
case("responses-max", "max_output_tokens reached -> incomplete, and the reason", lambda s: (r := respond(s))["status"] == "incomplete" and r["incomplete_details"]["reason"] == "max_output_tokens")
case("responses-sampling", "top_k, repetition_penalty and seed -> taken", lambda s: respond(s, temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.2, seed=42).text)
case("responses-event-stack", "a stream -> every event that ends something ends what was begun last",
     lambda s: (r := respond(s, stream=True, tools=[], background=False)).streamed and len(r.events) > 6 and ends_what_it_began(r))
more("responses-sequence", "a stream -> sequence numbers from 0 without a gap", lambda s: (n := [e["sequence_number"] for e in respond(s, stream=True).events]) == list(range(len(n))) != [])

case, also, more = source("vLLM", "openai/responses/test_basic.py")
case("responses-input-text", "a string -> an item of reasoning with text, and one of type message at the end",
     lambda s: (o := respond(s, **musing(s))["output"])[-1]["type"] == "message" and o[-1]["content"][0]["text"] and o[0]["type"] == "reasoning" and o[0]["content"][0]["text"])
case("responses-instructions", "instructions -> as a system message", lambda s: s.same(respond(s, "Hi", instructions="Book"), respond(s, [BOOK[0], {"role": "user", "content": "Hi"}])))
case("responses-chat", "system, user, assistant, user -> answered", lambda s: respond(s, [*BOOK, {"role": "assistant", "content": "15"}, {"role": "user", "content": "Twice?"}]).answered)
case("responses-input-parts", "content as input_text, a model that ends -> completed", lambda s: respond(s, [{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}],
                                                                                                          logit_bias={str(s.ids("<|im_end|>")[0]): 100})["status"] == "completed")
case("responses-logprobs-whole", "top_logprobs 5 with include -> 5 for each token of the text", lambda s: len(output(respond(s, top_logprobs=5, include=["message.output_text.logprobs"]), "message")[
    "content"][-1]["logprobs"][0]["top_logprobs"]) == 5)
case("responses-streaming", "a stream of a model that ends -> response.created first, deltas of text, response.completed last",
     lambda s: (t := respond(s, stream=True, reasoning={"effort": "none"}, temperature=1, seed=1, max_output_tokens=300, logit_bias={str(s.ids("<|im_end|>")[0]): 3}).types())[0] == "response.created"
     and "response.output_text.delta" in t and t[-1] == "response.completed")
more("responses-input-parts-same", "content as input_text -> as a string", lambda s: s.same(respond(s, [{"role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}]), respond(s, "Hello!")))

case, also, more = source("vLLM", "openai/responses/test_stateful.py")
case("responses-stored", "previous_response_id of an answer -> the talk goes on", lambda s: respond(s, previous_response_id=respond(s, store=True)["id"]).answered,
     differs="400: the server keeps no state; clients send the whole input, as with store: false")
case("responses-background", "background -> the answer later", lambda s: respond(s, background=True, store=True).answered,
     differs="400: the same, the server keeps no state")
case("responses-background-error", "background with store false -> 400", lambda s: respond(s, background=True, store=False).refused("background"))

case, also, more = source("vLLM", "openai/responses/test_structured_output.py")
EVENT = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "who": {"type": "array", "items": {"type": "string", "maxLength": 6}, "maxItems": 2}},
         "required": ["name", "who"], "additionalProperties": False}
case("responses-event", "a schema -> an object with what it requires", lambda s: set(json.loads(respond(s, BOOK, **QUIET, **as_text(EVENT)).text)) == {"name", "who"})
case("responses-event-parse", "the same with instructions and a schema made from a class -> the same", lambda s: set(json.loads(respond(s, "A fair", **QUIET, instructions="Book", **as_text(
    {**EVENT, "title": "Event", "properties": {k: {**v, "title": k.title()} for k, v in EVENT["properties"].items()}})).text)) == {"name", "who"})
more("responses-event-stream", "the same as a stream -> the same text", lambda s: s.same(*[respond(s, BOOK, **QUIET, **as_text(EVENT), stream=x) for x in (False, True)]))

case, also, more = source("vLLM", "openai/responses/test_function_call.py")
case("responses-call", "tool_choice required, a model that thinks -> reasoning and a function_call with valid arguments",
     lambda s: "latitude" in json.loads(output(r := respond(s, **{**USE, "reasoning": {"effort": "low"}, "repetition_penalty": 2, "logit_bias": {str(s.ids("<think>")[0]): 60, str(s.ids("</think>")[0]): 20}},
                                                       tool_choice="required"), "function_call")["arguments"]) and output(r, "reasoning"))
more("responses-call-auto", "tool_choice auto -> answered", lambda s: respond(s, tools=[TOOL], tool_choice="auto").answered)
case("responses-call-named", "a named tool -> a call of it", lambda s: output(respond(s, **USE, tool_choice={"type": "function", "name": "get_weather"}), "function_call")["name"] == "get_weather")
also("responses-call-back", "the call and its output sent back -> answered",
     lambda s: (c := output(respond(s, **USE, tool_choice="required"), "function_call")) and respond(s, [*BOOK, c, {"type": "function_call_output", "call_id": c["call_id"], "output": "20 degrees"}]).text)
case("responses-call-cut", "required, and 3 tokens -> no call, incomplete", lambda s: (r := respond(s, **{**USE, "max_output_tokens": 3}, tool_choice="required"))["output"] is not None
     and not [o for o in r["output"] if o["type"] == "function_call"] and r["incomplete_details"]["reason"] == "max_output_tokens")
case("responses-call-stream", "the same as a stream -> the deltas make the arguments of the item at the end, which has the name of the one at the begin",
     lambda s: deltas(r := respond(s, **USE, tool_choice="required", stream=True), "response.function_call_arguments.delta")
     == (d := next(e["item"] for e in r.events if e["type"] == "response.output_item.done" and e["item"]["type"] == "function_call"))["arguments"] and "latitude" in json.loads(d["arguments"])
     and next(e["item"] for e in r.events if e["type"] == "response.output_item.added" and e["item"]["type"] == "function_call")["name"] == d["name"] == "get_weather")
case("responses-call-stack", "the same -> ends what it began", lambda s: (r := respond(s, **USE, tool_choice="required", stream=True)).streamed and "response.function_call_arguments.done" in r.types() and ends_what_it_began(r))

case, also, more = source("vLLM", "openai/responses/test_errors.py")
more("responses-no-input", "no input -> 400", lambda s: s.call("/v1/responses", {}).refused("input"))
more("responses-wrong-model", "another model -> 404", lambda s: respond(s, model="nope").refused("nope", status=404))
for name, value in (("temperature", 5), ("max_output_tokens", 0), ("top_p", 2), ("tools", [{"type": "web_search"}]), ("text", {"format": {"type": "x"}}), ("input", 5)):
    more(f"responses-refused-{name}", f"{name} {json.dumps(value)} -> 400", lambda s, name=name, value=value: respond(s, **{name: value}).refused() if name != "input" else respond(s, value).refused())

case, also, more = source("vLLM", "openai/responses/test_image.py")
more("responses-image", "an image for a model of text -> 400", lambda s: respond(s, [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]).refused())

case, also, more = source("vLLM", "openai/responses/test_usage_policy.py")
case("responses-usage", "an answer -> input, output and total tokens", lambda s: (u := respond(s).usage)["total_tokens"] == u["input_tokens"] + u["output_tokens"] and u["output_tokens"] == 8)
case("responses-usage-not-before", "a stream -> no usage before its end", lambda s: (r := respond(s, stream=True)).streamed and any("response" in e for e in r.events[:-1])
     and not [e for e in r.events[:-1] if "response" in e and e["response"]["usage"]])
also("responses-usage-stream", "a stream -> the same at its end", lambda s: respond(s, stream=True).events[-1]["response"]["usage"]["output_tokens"] == 8)

case, also, more = source("vLLM", "openai/responses/test_sampling_params.py")
case("responses-params", "temperature, top_p, top_k and max_output_tokens -> in force: top_k 1 is the greedy text, and no longer than that",
     lambda s: (r := respond(s, temperature=0.8, top_p=0.95, top_k=1, max_output_tokens=20))["usage"]["output_tokens"] == 20 and r.text == respond(s, max_output_tokens=20).text != "")
case("responses-params-extra", "repetition_penalty, seed, stop strings and ignore_eos -> in force",
     lambda s: (q := {**QUIET, "max_output_tokens": 20, "ignore_eos": True}) and s.same(respond(s, **q), respond(s, **q)) and respond(s, **{**q, "seed": 43}).text != (w := respond(s, **q).text)
     and respond(s, **q, repetition_penalty=50).text != w and respond(s, **q, stop=[w[4:7], "never so"]).text == w[:w.index(w[4:7])])
case("responses-params-stop", "one stop string -> as a list of it", lambda s: (q := {**QUIET, "max_output_tokens": 20}) and (w := respond(s, **q).text) and s.same(*[respond(s, **q, stop=x) for x in (w[4:7], [w[4:7]])]))
case("responses-params-seed", "seeds of more than 64 bits -> 400, the outermost that fit -> taken",
     lambda s: all(respond(s, seed=x).refused("seed") for x in (-2**63 - 1, 2**63)) and all(respond(s, seed=x).ok for x in (-2**63, 2**63 - 1)))
case("responses-params-grammar", "structured_outputs.grammar -> obeyed", lambda s: respond(s, **QUIET, structured_outputs={"grammar": 'root ::= "hello"'}).text == "hello")
case("responses-params-object", "text.format json_object -> an object", lambda s: isinstance(json.loads(respond(s, **QUIET, logit_bias={str(s.ids("}")[0]): 100}, text={"format": {"type": "json_object"}}).text), dict))
case("responses-params-two-rules", "structured_outputs beside a schema in text.format -> 400", lambda s: respond(s, structured_outputs={"grammar": 'root ::= "hello"'}, **as_text({"type": "object"})).refused())
