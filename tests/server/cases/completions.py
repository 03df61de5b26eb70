"""/v1/completions: text, ids, several prompts, streams, log probabilities, sampling, stops."""
import json
import re

from cases import source
from serving import post

ALL = [0, 0, 0, 0, 0]
LIFE = "I believe the meaning of life is"
ONCE = "Once upon a time there was a"


def busy(s, server):
    return sum(slot["is_processing"] for slot in s.call("/slots", server=server).body)



# ---- llama-server ---------------------------------------------------------------------------------------------

case, also, more = source("llama.cpp", "test_completion.py")
for words, n in (("short", 8), ("long", 64)):
    case(f"completion-{words}", f"{n} tokens asked for by n_predict, ids {'asked for' if n > 8 else 'not'} -> 200, the prompt's tokens and {n} counted, text, cut by length, ids as asked",
         lambda s, n=n: (r := s.complete(LIFE, max_tokens=None, n_predict=n, ignore_eos=True, return_token_ids=n > 8)).ok and r.usage["completion_tokens"] == n and r.text and r.finish == "length"
         and r.usage["prompt_tokens"] == len(s.call("/tokenize", {"content": LIFE, "add_special": True})["tokens"])
         and (len(r.choice["token_ids"]) == n and all(isinstance(i, int) for i in r.choice["token_ids"]) if n > 8 else "token_ids" not in r.choice))
    case(f"completion-{words}-stream", f"the same as a stream -> text in pieces, one end, for length, after {n} tokens",
         lambda s, n=n: (r := s.complete(max_tokens=n, ignore_eos=True, stream=True, stream_options={"include_usage": True})).ok and r.finishes() == ["length"]
         and len(r.text) > 0 and r.events[-1]["usage"]["completion_tokens"] == n)
case("completion-stream-is-whole", "one request as a stream and not -> the same text", lambda s: s.same(s.complete(stream=True), s.complete()))
case("completion-any-model", "a model's name that nobody serves -> answered all the same", lambda s: s.complete(model="davinci-002").answered,
     differs="404 model_not_found, as vLLM and OpenAI: a client with a wrong name is to know; --served-model-name gives aliases")
also("completion-fields-of-openai", "what the openai package reads -> id, object, created, model, choices, usage",
     lambda s: {"id", "object", "created", "model", "choices", "usage"} <= set((r := s.complete()).body) and r["object"] == "text_completion" and r["id"].startswith("cmpl"))
also("completion-fingerprint", "any answer -> a system_fingerprint that names the build", lambda s: isinstance(s.complete()["system_fingerprint"], str))
case("completion-openai-stream", "a stream -> text in every event before the end", lambda s: (r := s.complete(stream=True)).streamed and all(isinstance(c["text"], str) for c in r.deltas()) and r.text)
more("completion-fingerprint-same", "two answers -> the same fingerprint", lambda s: s.complete()["system_fingerprint"] == s.complete("x")["system_fingerprint"])
case("completion-stops-at-strings", "stop strings in a stream -> the text ends before the first",
     lambda s: (w := s.complete(max_tokens=20).text) and (r := s.complete(max_tokens=20, stream=True, stop=[w[5:8], "never so"])).ok
     and r.text == w[:w.index(w[5:8])] and r.finishes() == ["stop"])
for n in (1, 2):
    case(f"seed-repeats-{n}", f"{n} at once with the same seed, greedy -> the same text every time",
         lambda s, n=n: s.same(*s.together(*[lambda: s.complete(seed=42)] * n), *s.together(*[lambda: s.complete(seed=42)] * n)))
    more(f"seed-repeats-{n}-sampled", f"{n} at once with the same seed, temperature 1 -> the same text every time",
         lambda s, n=n: s.same(*s.together(*[lambda: s.complete(seed=42, temperature=1)] * n), *s.together(*[lambda: s.complete(seed=42, temperature=1)] * n)))
    case(f"seeds-differ-{n}", f"{n} at once, four seeds at temperature 1 -> four texts",
         lambda s, n=n: len({r.text for seed in range(4) for r in s.together(*[lambda seed=seed: s.complete(seed=seed, temperature=1, max_tokens=16)] * n)}) == 4)
for size in (16, 32):
    case(f"batch-size-{size}", f"prompts computed in steps of {size} tokens -> the same text as in one",
         lambda s, size=size: s.complete(LIFE * 4, seed=42).text == s.call("/v1/completions", {"prompt": LIFE * 4, "seed": 42, "temperature": 0, "max_tokens": 8},
                                                                           server=s.start("--max-num-batched-tokens", size)).text)
more("cache-changes-nothing", "the same prompt computed and found in the cache, temperature 1 -> the same text",
     lambda s: s.same(*[s.complete(LIFE + " forty-two " * 9, seed=42, temperature=1, cache_salt=salt) for salt in ("a", "a", "b")]))
case("prompt-too-long", "a prompt longer than the context -> 400 with a message", lambda s: s.complete("one two three " * 4000).refused())
case("prompt-of-ids", "the ids of /tokenize as the prompt -> the text of the text",
     lambda s: s.same(s.complete(s.call("/tokenize", {"content": LIFE, "add_special": True})["tokens"]), s.complete(LIFE)))
also("prompts-of-ids", "two lists of ids -> two answers alike", lambda s: (t := s.ids(LIFE)) and [c["text"] for c in s.complete([t, t]).choices] == [s.complete(LIFE).text] * 2)
also("prompts-mixed", "a list of ids and a string -> two answers alike", lambda s: (r := s.complete([s.ids(LIFE), LIFE])) and len({c["text"] for c in r.choices}) == 1 and len(r.choices) == 2)
also("prompt-mixed-inside", "ids and strings in one prompt -> one prompt of all of them", lambda s: s.complete([1, 2, 3, "life", 4, "is"]).answered)
for slots, requests in ((1, 3), (2, 2), (2, 4), (4, 2), (4, 6)):
    case(f"parallel-{slots}-{requests}", f"{requests} requests on {slots} slots -> all are answered, each as it would be alone",
         lambda s, slots=slots, requests=requests: (o := s.start("--max-num-seqs", slots)) and all(
             a.ok and a.text == b.text for a, b in zip(*[s.together(*[lambda i=i: s.call("/v1/completions", {"prompt": f"{i} {ONCE}", "seed": i, "max_tokens": 24}, server=w)
                                                                      for i in range(requests)]) for w in (o, s.server)], strict=True)))
    also(f"parallel-{slots}-{requests}-busy", "while they run -> as many slots busy as there are requests for; none when their clients are gone",
         lambda s, slots=slots, requests=requests: (o := s.start("--max-num-seqs", slots)) and busy(s, o) == 0
         and (c := [o.raw(post("/v1/completions", {"prompt": ONCE, "max_tokens": 3000, "ignore_eos": True, "stream": True})) for _ in range(requests)])
         and s.becomes(lambda: busy(s, o) == min(slots, requests)) and not any(x.close() for x in c) and s.becomes(lambda: busy(s, o) == 0))
for n, fields in ((8, []), (32, ["content", "generation_settings/n_predict", "prompt"])):
    case(f"completion-response-fields-{len(fields)}", f"/completion with {len(fields)} response_fields -> these alone, or all",
         lambda s, n=n, fields=fields: s.call("/completion", {"prompt": LIFE, "n_predict": n, "response_fields": fields}).body["content"],
         differs="only the OpenAI routes are served; llama-server's clients know /v1/completions, too")
case("probs", "10 likeliest for each of 5 tokens -> 5 entries, logprobs at most 0, 10 each",
     lambda s: (p := s.complete(max_tokens=5, logprobs=10).choice["logprobs"]) and len(p["tokens"]) == 5 and all(x <= 0 for x in p["token_logprobs"])
     and all(10 <= len(t) <= 11 and max(t.values()) <= 0 for t in p["top_logprobs"]))
also("probs-bytes", "the same through chat -> text, bytes and logprob of each", lambda s: all(
    isinstance(t["token"], str) and isinstance(t["bytes"], list) and t["logprob"] <= 0 and len(t["top_logprobs"]) == 10
    for t in s.chat(max_tokens=5, logprobs=True, top_logprobs=10).choice["logprobs"]["content"]))
case("probs-stream", "the same as a stream -> every event with text has them",
     lambda s: (d := [c for c in s.complete(max_tokens=5, logprobs=10, stream=True).deltas() if c["text"]]) and all(c["logprobs"]["token_logprobs"] and len(c["logprobs"]["top_logprobs"][0]) >= 10 for c in d))
case("probs-after-sampling", "post_sampling_probs -> the probabilities that sampling used", lambda s: "top_probs" in json.dumps(s.complete(logprobs=2, post_sampling_probs=True).body),
     differs="log probabilities are those of the model, as in the other APIs; the field is ignored and counted")
for form, bias in (("ids", lambda t: {str(i): -100 for i in t}), ("pairs", lambda t: [[i, -100] for i in t])):
    case(f"bias-{form}", f"logit_bias -100 as {form} -> none of the tokens comes",
         lambda s, bias=bias: (t := sorted({i for i in s.complete(max_tokens=40, return_token_ids=True).choice["token_ids"]}))
         and not set(s.complete(max_tokens=40, return_token_ids=True, logit_bias=bias(t)).choice["token_ids"]) & set(t))
case("bias-texts", "pairs of a text and -100 -> none of the text's tokens comes",
     lambda s: (w := s.complete(max_tokens=40, return_token_ids=True)) and (words := ["for", "V", "K"]) and set(w.choice["token_ids"]) & {i for t in words for i in s.ids(t)}
     and not set(s.complete(max_tokens=40, return_token_ids=True, logit_bias=[[t, -100] for t in words]).choice["token_ids"]) & {i for t in words for i in s.ids(t)})
case("bias-object-of-texts", "an object whose keys are texts -> as pairs of texts", lambda s: s.complete(logit_bias={" the": -100}).answered,
     differs="400: in OpenAI's object a key is an id, and one that is none is a mistake; the list of pairs takes texts")
case("cancelled", "a client that goes away -> its slot is free soon",
     lambda s: s.hang_up("/v1/completions", {"prompt": LIFE, "max_tokens": 3000, "ignore_eos": True, "stream": True}) or s.becomes(s.is_idle, 2))

case, also, more = source("llama.cpp", "test_ctx_shift.py")
case("context-is-filled", "no bound on the answer -> it ends for length where the context ends",
     lambda s: (r := s.call("/v1/completions", {"prompt": "Hi how are you", "n_predict": -1, "ignore_eos": True}, server=s.start("--max-model-len", 128))).ok
     and r.usage["total_tokens"] == 128 and r.finish == "length")
case("context-short-prompt", "64 tokens that fit -> 64, not cut", lambda s: s.complete("Hi how are you", max_tokens=64, ignore_eos=True).usage["completion_tokens"] == 64)
case("context-long-prompt", "a prompt beyond the context -> an error that says so and has both numbers",
     lambda s: (r := s.complete("Lorem ipsum dolor sit amet. " * 900)).status != 200 and "context" in r.error["message"] and r.error["n_prompt_tokens"] > r.error["n_ctx"] == 4096)
case("context-stream", "a stream that fills the context -> text, then one end for length",
     lambda s: (r := s.call("/v1/completions", {"prompt": "Once", "n_predict": 100, "stream": True, "ignore_eos": True}, server=s.start("--max-model-len", 128))).text
     and r.finishes() == ["length"])

case, also, more = source("llama.cpp", "test_ignore_eos.py")
for value in (True, False):
    case(f"ignore-eos-told-{value}", f"ignore_eos {value} -> generation_settings.logit_bias has {'the ends' if value else 'nothing'}",
         lambda s, value=value: bool(s.complete(ignore_eos=value)["generation_settings"]["logit_bias"]) is value, differs="answers do not repeat the settings of their request; what the field does is checked below")
more("ignore-eos", "ignore_eos with the end made certain -> goes on to max_tokens",
     lambda s: (eos := s.ids("<|im_end|>")[0]) and s.complete(logit_bias={str(eos): 100}, ignore_eos=True).usage["completion_tokens"] == 8)
more("ignore-eos-not", "the same without -> ends at once, for stop",
     lambda s: (eos := s.ids("<|im_end|>")[0]) and (r := s.complete(logit_bias={str(eos): 100})).finish == "stop" and r.usage["completion_tokens"] == 1)

case, also, more = source("llama.cpp", "test_infill.py")
more("infill-unsupported", "fill in the middle with a model that was not made for it -> an error that says so", lambda s: s.complete(suffix="end").refused("middle"))

case, also, more = source("llama.cpp", "test_speculative.py")
def guessing(s, n):
    return s.call("/v1/completions", {"prompt": "a b c a b c a b", "temperature": 0, "max_tokens": 60}, server=s.start("--speculate", "ngram", "--num-speculative-tokens", n))


case("speculation", "guessed tokens -> the text is that without guessing", lambda s: s.same(s.complete("a b c a b c a b", max_tokens=60), guessing(s, 8)))
case("speculation-sizes", "2, 4, 8, 12 and 16 guessed tokens a step -> the same text", lambda s: s.same(*[guessing(s, n) for n in (2, 4, 8, 12, 16)]))
for n in (1, 2):
    case(f"speculation-parallel-{n}", f"two requests on {n} slots while guessing -> each as alone",
         lambda s, n=n: (o := s.start("--speculate", "ngram", "--num-speculative-tokens", 4, "--max-num-seqs", n)) and s.same(
             s.complete(max_tokens=30), *s.together(*[lambda: s.call("/v1/completions", {"prompt": LIFE, "temperature": 0, "max_tokens": 30}, server=o)] * 2)))
case("speculation-context", "guessing where the context ends -> text up to its end", lambda s: (r := s.call(
    "/v1/completions", {"prompt": [5] * 56, "temperature": 0, "n_predict": -1, "ignore_eos": True}, server=s.start("--max-model-len", 64, "--speculate", "ngram"))).text and r.usage["total_tokens"] == 64)

case, also, more = source("llama.cpp", "test_slot_save.py")
more("cache-is-used", "a prompt that begins as an earlier one -> only the rest is computed", lambda s: s.complete(LIFE * 9).ok and s.complete(LIFE * 9 + " x").usage["prompt_tokens_details"]["cached_tokens"] > 30)

# ---- vLLM -----------------------------------------------------------------------------------------------------

case, also, more = source("vLLM", "openai/completion/test_completion.py")
case("single", "5 tokens, greedy -> one choice, length, usage that adds up",
     lambda s: (r := s.complete("Hello, my name is", max_tokens=5)).finish == "length" and len(r.choices) == 1 and r.usage["completion_tokens"] == 5
     and r.usage["total_tokens"] == r.usage["prompt_tokens"] + 5)
also("single-details", "a fresh prompt -> prompt_tokens_details with 0 cached tokens", lambda s: s.complete(cache_salt="single-details").usage["prompt_tokens_details"]["cached_tokens"] == 0)
also("single-ids", "five ids -> text, no prompt_logprobs", lambda s: (r := s.complete(ALL, max_tokens=5)).text and r.choice.get("prompt_logprobs") is None)
case("truncate-right", "8 ids cut to 4, truncation_side right -> the first 4", lambda s: s.complete(list(range(8)), truncate_prompt_tokens=4, truncation_side="right", return_token_ids=True)
     .choice["prompt_token_ids"] == [0, 1, 2, 3])
also("truncate-left", "the same, left -> the last 4", lambda s: s.complete(list(range(8)), truncate_prompt_tokens=4, truncation_side="left", return_token_ids=True)
     .choice["prompt_token_ids"] == [4, 5, 6, 7])
case("logprobs-null", "logprobs null -> none", lambda s: s.complete(ALL, logprobs=None).choice["logprobs"] is None)
case("logprobs-0", "logprobs 0 -> the token itself, alone", lambda s: (p := s.complete(ALL, logprobs=0).choice["logprobs"]) and p["token_logprobs"] and len(p["top_logprobs"][0]) == 1)
case("logprobs-5", "logprobs 5 -> 5 or 6 each", lambda s: all(5 <= len(t) <= 6 for t in s.complete(ALL, logprobs=5).choice["logprobs"]["top_logprobs"]))
case("logprobs-too-many", "logprobs 21, and 30 in a stream -> errors, and the server answers on",
     lambda s: s.complete(ALL, logprobs=21).refused() and s.complete(ALL, logprobs=30, stream=True).refused() and s.complete(ALL).ok)
for n in (-1, 0, 1, None):
    case(f"prompt-logprobs-{n}", f"two prompts, prompt_logprobs {n} -> " + ("400" if n == -1 else "none" if n is None else "one list each, the first entry null"),
         lambda s, n=n: (r := s.complete(["A robot may not injure another robot", "My name is"], **({} if n is None else {"prompt_logprobs": n}))) and (
             r.refused() if n == -1 else [c.get("prompt_logprobs") for c in r.choices] == [None, None] if n is None else
             all(len(c["prompt_logprobs"]) > 2 and c["prompt_logprobs"][0] is None for c in r.choices)))
case("stream-is-whole", "a stream -> its pieces make the whole text", lambda s: s.same(s.complete("What is an LLM?", max_tokens=5), s.complete("What is an LLM?", max_tokens=5, stream=True)))
also("stream-one-end", "a stream -> one finish_reason, in the last event", lambda s: (r := s.complete(stream=True)).finishes() == ["length"] and r.deltas()[-1]["finish_reason"] == "length" and r.done)
also("stream-last-has-text", "a stream -> the event that ends it has text", lambda s: s.complete("What is an LLM?", max_tokens=5, stream=True).deltas()[-1]["text"])


def three(s):
    """Three samples, one of which ends early."""
    return {"prompt": "What is an LLM?", "n": 3, "temperature": 1, "seed": 42, "max_tokens": 50, "logit_bias": {str(s.ids("<|im_end|>")[0]): 4}}


case("parallel-n", "n 3, temperature 1, a seed -> three different texts with their indices, not all as long",
     lambda s: (r := s.complete(**three(s), logprobs=0)) and [c["index"] for c in r.choices] == [0, 1, 2] and len({c["text"] for c in r.choices}) == 3
     and all(c["finish_reason"] for c in r.choices) and len({len(c["logprobs"]["tokens"]) for c in r.choices}) > 1)
case("parallel-n-stream", "the same as a stream -> three texts, three ends, not in as many events",
     lambda s: len(set((r := s.complete(**three(s), stream=True)).texts().values())) == 3 and len(r.finishes()) == 3 and len({sum(c["index"] == i for c in r.deltas()) for i in range(3)}) > 1)
more("parallel-n-same", "the same twice, whole and as a stream -> the same texts",
     lambda s: [c["text"] for c in s.complete(n=3, temperature=1, seed=42).choices] == [t for _, t in sorted(s.complete(n=3, temperature=1, seed=42, stream=True).texts().items())])
case("stream-usage-none", "include_usage false, with continuous_usage_stats and without, and empty stream_options -> no usage in any event",
     lambda s: all((r := s.complete(stream=True, stream_options=options)).streamed and all(e.get("usage") is None for e in r.events)
                   for options in ({"include_usage": False, "continuous_usage_stats": False}, {"include_usage": False, "continuous_usage_stats": True}, {})))
also("stream-usage-end", "include_usage -> usage in one last event without choices",
     lambda s: (r := s.complete(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": False})).events[-1]["choices"] == []
     and (u := r.events[-1]["usage"])["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"] > 0 and all(e.get("usage") is None for e in r.events[:-1]))
also("stream-usage-each", "and continuous_usage_stats -> in every event, and once more at the end",
     lambda s: (r := s.complete(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})).events[-1]["choices"] == []
     and all(e["usage"]["total_tokens"] == e["usage"]["prompt_tokens"] + e["usage"]["completion_tokens"] for e in r.events))
also("no-stream-options", "include_usage or continuous_usage_stats, null or true, without a stream -> 400",
     lambda s: all(s.complete(stream=False, stream_options={name: value}).refused() for name in ("include_usage", "continuous_usage_stats") for value in (None, True)))
case("batch", "two prompts alike, as texts and as ids -> two answers alike",
     lambda s: all(len((r := s.complete(p)).choices) == 2 and r.choices[0]["text"] == r.choices[1]["text"] for p in (["Hello, my name is"] * 2, [ALL] * 2)))
also("batch-stream", "the same as a stream -> one choice an event, two texts alike",
     lambda s: all((r := s.complete(p, stream=True)).streamed and all(len(e["choices"]) == 1 for e in r.events) and len(r.texts()) == 2 and len(set(r.texts().values())) == 1
                   for p in (["Hello, my name is"] * 2, [ALL] * 2)))
also("beam-search", "use_beam_search with n 2 -> the two best beams", lambda s: s.complete(n=2, use_beam_search=True).answered,
     differs="400: there is no beam search; sampling keeps nothing to rank, and clients use it rarely")
more("batch-n", "two prompts alike and n 2 -> four answers, those of equal prompts alike", lambda s: len((c := s.complete([ALL] * 2, n=2, temperature=0).choices)) == 4 and c[0]["text"] == c[2]["text"])
for n in (1, 0):
    case(f"echo-logprobs-{n}", f"echo with logprobs {n}, of a text and of ids -> the prompt first, its first entry null, all lists as long",
         lambda s, n=n: all((r := s.complete(prompt, echo=True, logprobs=n, max_tokens=5)) and (p := r.choice["logprobs"])["token_logprobs"][0] is None
                            and p["top_logprobs"][0] is None and len(p["tokens"]) == len(p["text_offset"]) == len(p["token_logprobs"]) == len(p["top_logprobs"]) > 5
                            and all(max(n, 1) <= len(t) <= n + 1 for t in p["top_logprobs"][1:]) and r.text.startswith(prompt if isinstance(prompt, str) else s.call("/detokenize", {"tokens": prompt})["prompt"])
                            for prompt in ("Hello, my name is", [40, 41, 42, 43, 44, 45])))
SCHEMA = {"type": "object", "properties": {"brand": {"type": "string"}, "foo": "bar"}, "required": ["brand"]}
for name, value in (("json", SCHEMA), ("regex", "[.*"), ("grammar", "root ::= statement-that-is-nowhere\n other ::= \"a\"")):
    case(f"bad-{name}", f"structured_outputs.{name} that is wrong -> 400", lambda s, name=name, value=value: s.complete(structured_outputs={name: value}).refused())

case, also, more = source("vLLM", "openai/completion/test_completion_text_offset.py")
case("offsets-with-stops", "log probabilities with a stop string, as a stream and whole -> the same offsets",
     lambda s: [x for c in s.complete(logprobs=0, stop=["\n\n"], stream=True).deltas() if c["logprobs"] for x in c["logprobs"]["text_offset"]]
     == s.complete(logprobs=0, stop=["\n\n"]).choice["logprobs"]["text_offset"])

case, also, more = source("vLLM", "openai/completion/test_prompt_validation.py")
case("prompt-null", "no prompt -> 400", lambda s: s.complete(None).refused("prompt"))
case("prompt-out-of-vocabulary", "an id beyond the vocabulary -> 400 that says so", lambda s: s.complete([999999]).refused("token id"))
case("prompt-embeds", "prompt_embeds where they are not enabled -> 400 that names them", lambda s: s.complete(prompt_embeds="AAAA").refused("prompt_embeds"))

case, also, more = source("vLLM", "openai/completion/test_empty_prompt_list.py")
case("prompts-empty", "an empty list -> 400", lambda s: s.complete([]).refused("prompt"))
case("prompts-one", "a list of one -> one answer", lambda s: len(s.complete(["hello"]).choices) == 1)

case, also, more = source("vLLM", "openai/completion/test_completion_error.py")
case("format-without-schema", "response_format json_schema without a schema -> 400 that says so", lambda s: s.complete(response_format={"type": "json_schema"}).refused("json_schema"))
case("ids-negative", "a negative id -> 400", lambda s: s.complete([-1]).refused())
case("ids-negative-nested", "the same in a list of prompts -> 400", lambda s: s.complete([[-1]]).refused())

case, also, more = source("vLLM", "openai/basic/test_return_token_ids.py")
case("token-ids", "return_token_ids -> those of the prompt and of the answer, and both decode to the texts",
     lambda s: (r := s.complete("I love coding \U0001f680", return_token_ids=True, max_tokens=10)).choice["prompt_token_ids"] == s.ids("I love coding \U0001f680")
     and s.call("/detokenize", {"tokens": r.choice["token_ids"]})["prompt"].startswith(r.text) and r.text)
also("token-ids-off", "return_token_ids false -> neither", lambda s: (c := s.complete(return_token_ids=False).choice)["text"] and not {"token_ids", "prompt_token_ids"} & set(c))
case("token-ids-echo", "with echo and tokens named by id -> the answer's ids end the list",
     lambda s: (c := s.complete(echo=True, logprobs=1, return_token_ids=True, return_tokens_as_token_ids=True, prompt_logprobs=1).choice) and
     [int(t.removeprefix("token_id:")) for t in c["logprobs"]["tokens"]] == c["prompt_token_ids"] + c["token_ids"] and len(c["prompt_logprobs"]) == len(c["prompt_token_ids"]) and c["text"].endswith(
         s.call("/detokenize", {"tokens": c["token_ids"]})["prompt"]))
also("token-ids-stream", "as a stream -> the prompt's ids once, in the first event; the others add up",
     lambda s: (d := s.complete(return_token_ids=True, return_tokens_as_token_ids=True, logprobs=1, stream=True).deltas()) and d[0]["prompt_token_ids"]
     and not [c for c in d[1:] if "prompt_token_ids" in c] and [i for c in d for i in c["token_ids"]] == [int(t[9:]) for c in d if c["logprobs"] for t in c["logprobs"]["tokens"]])

case, also, more = source("vLLM", "openai/completion/test_token_in_token_out.py")
case("ids-in-ids-out", "ids in, ids out -> what text in and text out would be",
     lambda s: (r := s.complete(s.ids(LIFE), return_token_ids=True)).choice["token_ids"] == s.complete(LIFE, return_token_ids=True).choice["token_ids"])

case, also, more = source("vLLM", "openai/completion/test_usage_policy.py")
case("usage-always", "no stream -> usage without asking", lambda s: s.complete().usage["completion_tokens"] == 8)
case("usage-not-in-streams", "a stream that does not ask -> no usage", lambda s: (r := s.complete(stream=True)).streamed and all(e.get("usage") is None for e in r.events))

case("usage-asked-in-streams", "a stream with include_usage -> usage in an event without choices", lambda s: any(e.get("usage") and not e["choices"] for e in s.complete(stream=True, stream_options={"include_usage": True}).events))

case, also, more = source("vLLM", "../v1/entrypoints/openai/test_completion.py")
more("min-tokens", "min_tokens with the end made certain -> so many, then the end",
     lambda s: (eos := s.ids("<|im_end|>")[0]) and s.complete(logit_bias={str(eos): 100}, min_tokens=5, max_tokens=20).usage["completion_tokens"] == 6)
more("stop-token-ids", "an id that stops -> ends for stop, and stop_reason is the id",
     lambda s: (r := s.complete(logit_bias={"65": 100}, stop_token_ids=[65])).finish == "stop" and r.choice["stop_reason"] == 65)
more("stop-kept", "include_stop_str_in_output -> the text ends with the string",
     lambda s: (w := s.complete().text) and s.complete(stop=w[3:6], include_stop_str_in_output=True).text == w[:w.index(w[3:6]) + 3])
for name, value in (("top_k", 1), ("top_p", 0.0001), ("min_p", 1.0)):
    more(f"greedy-by-{name}", f"temperature 1 with {name} {value} -> the greedy text", lambda s, name=name, value=value: s.same(s.complete(), s.complete(temperature=1, **{name: value})))
for name, value in (("presence_penalty", 2), ("frequency_penalty", 2), ("repetition_penalty", 100)):
    more(f"penalty-{name}", f"a token made likely, {name} {value} -> fewer kinds repeat",
         lambda s, name=name, value=value: len(set(s.complete(max_tokens=60, return_token_ids=True, **{name: value}).choice["token_ids"]))
         > len(set(s.complete(max_tokens=60, return_token_ids=True).choice["token_ids"])))
for name, value in (("temperature", -1), ("top_p", 1.5), ("top_k", -2), ("min_p", 2), ("presence_penalty", 3), ("frequency_penalty", -3), ("repetition_penalty", 0), ("n", 0),
                    ("max_tokens", -5), ("min_tokens", -1), ("stop", [""]), ("logit_bias", {"1": 200}), ("stop_token_ids", ["a"]), ("seed", "x")):
    more(f"refused-{name}", f"{name} {json.dumps(value)} -> 400 that names the field", lambda s, name=name, value=value: (r := s.complete(**{name: value})).refused() and r.error["param"] == name)
more("regex-holds", "structured_outputs.regex -> a text that matches, ended by itself",
     lambda s: re.fullmatch(r"((25[0-5]|1[0-9]{2})\.){3}[0-9]", (r := s.complete(structured_outputs={"regex": r"((25[0-5]|1[0-9]{2})\.){3}[0-9]"}, max_tokens=40)).text) and r.finish == "stop")
more("choice-holds", "structured_outputs.choice -> one of them", lambda s: s.complete(structured_outputs={"choice": ["Python", "Java", "Rust"]}, max_tokens=20).text in ("Python", "Java", "Rust"))
more("grammar-holds", "structured_outputs.grammar -> a sentence of it",
     lambda s: re.fullmatch(r"SELECT col_[12] from table_[12]", s.complete(structured_outputs={"grammar": 'root ::= "SELECT col_" n " from table_" n\nn ::= "1" | "2"'}, max_tokens=40).text))
