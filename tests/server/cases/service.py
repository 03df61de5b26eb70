"""What surrounds the answers: health, models, properties, slots, tokens, metrics, keys, pages of other origins, request ids, errors, limits, going away."""
import json
import re
import signal
import socket
import threading
import time

from cases import source
from cases.talk import KEY, USER
from serving import post, read_all

FRANCE = "What is the capital of France ?"
LONG = {"messages": [USER], "max_tokens": 3500, "ignore_eos": True, "stream": True}


def preflight(s, origin, server=None, path="/v1/completions"):
    return s.call(path, method="OPTIONS", headers={"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}, server=server)


def trusting(s):
    return s.start("--allowed-origins", "https://web.mydomain.fr")


def two_names(s):
    return s.start("--served-model-name", "own", "--served-model-name", "alias")


def through_socket(s, path):
    name = str(s.keys.parent / "socket")
    s.start("--uds", name)
    with socket.socket(socket.AF_UNIX) as c:
        c.connect(name)
        c.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return json.loads(read_all(c).partition(b"\r\n\r\n")[2])


def rise(s, ask, more):
    """One request of `ask` and no other: every metric of more(tokens of its prompt) grows by that much."""
    def now():
        return {name: sum(metric(s, "vllm:" + name)) for name in more(0)}
    before = s.becomes(s.is_idle) and now()
    grows = more(ask().usage["prompt_tokens"])
    return s.becomes(lambda: now() == {name: before[name] + n for name, n in grows.items()}, 2)


def ended(server, how, within):
    """Sends the server a signal; whether it ends well in time."""
    begin = time.monotonic()
    server.process.send_signal(how)
    try:
        return server.process.wait(within) == 0 and time.monotonic() - begin < within
    finally:
        server.end()


def metric(s, name, labels=""):
    return [float(line.rsplit(" ", 1)[1]) for line in s.get("/metrics").raw.splitlines() if line.startswith(name + "{") and labels in line]


# ---- llama-server ---------------------------------------------------------------------------------------------

case, also, more = source("llama.cpp", "test_basic.py")
case("health", "GET /health -> 200 and ok", lambda s: s.get("/health").ok and s.get("/health")["status"] == "ok")
case("props", "GET /props -> the model's path, slots, the context of one, the seed of who asks for none",
     lambda s: (p := s.get("/props"))["model_path"].endswith(".ada") and p["total_slots"] == 16 and p["default_generation_settings"]["n_ctx"] == 4096
     and p["default_generation_settings"]["params"]["seed"] == 4294967295)
case("models", "GET /models -> one, by its name", lambda s: [m["id"] for m in s.get("/models")["data"]] == ["qwen3"])
case("slots", "GET /slots -> one entry a slot, with its context", lambda s: len((r := s.get("/slots")).body) == 16 and r.body[0]["n_ctx"] == 4096 and r.body[0]["is_processing"] is False)
also("slots-no-params", "the same -> nothing of a request's content", lambda s: (slot := s.get("/slots").body[0]) and "n_ctx" in slot and not {"params", "prompt"} & set(slot))
also("slots-off", "the same of a server whose slots are switched off -> 501", lambda s: s.call("/slots", server=s.taking("--no-slots")).status == 501,
     differs="no option switches them off: they hold nothing of a request's content")
case("page", "GET / -> a page", lambda s: "<!doctype html>" in s.get("/").raw.lower())
also("page-off", "the same of a server whose page is switched off -> 404", lambda s: s.call("/", server=s.taking("--no-webui")).status == 404,
     differs="no option switches it off: it is served to loopback, or to who has a key")
case("aliases", "two names -> one model that has them as its aliases", lambda s: set(s.call("/models", server=two_names(s))["data"][0]["aliases"]) == {"own", "alias"},
     differs="a card for each name, as vLLM")
more("aliases-answer", "two names -> both work, and the answer has the one that was asked for",
     lambda s: [s.call("/v1/completions", {"prompt": "x", "model": m, "max_tokens": 1}, server=two_names(s))["model"] for m in ("own", "alias")] == ["own", "alias"])

case, also, more = source("llama.cpp", "test_tokenize.py")
case("tokenize-and-back", "tokens of a text, and their text -> the text", lambda s: s.call("/detokenize", {"tokens": (t := s.call("/tokenize", {"content": FRANCE})["tokens"])})["content"] == FRANCE and len(t) > 5)
case("tokenize-special", "add_special with a model that has no such token -> as without", lambda s: s.call("/tokenize", {"content": FRANCE, "add_special": True})["tokens"] == s.call("/tokenize", {"content": FRANCE})["tokens"])
case("tokenize-pieces", "with_pieces -> an id and a piece each; bytes where they are no text alone",
     lambda s: b"".join(bytes(t["piece"]) if isinstance(t["piece"], list) else t["piece"].encode() for t in s.call("/tokenize", {"content": "\u5abd \U0001f917", "with_pieces": True})["tokens"]).decode()
     == "\u5abd \U0001f917")

case, also, more = source("llama.cpp", "test_metrics.py")
case("metrics-cache", "a prompt twice -> its tokens found in the cache are counted, and a ratio is told",
     lambda s: s.complete("metrics cache " * 20).ok and s.complete("metrics cache " * 20).ok and metric(s, "llamacpp:prompt_tokens_cache_total")[0] > 0 and 0 < metric(s, "llamacpp:prompt_cache_hit_ratio")[0] < 1)
for name in ("prompt_tokens_total", "tokens_predicted_total", "prompt_seconds_total", "requests_processing", "requests_deferred", "n_decode_total"):
    more(f"metrics-{name}", f"GET /metrics -> llamacpp:{name}", lambda s, name=name: s.complete().ok and len(metric(s, "llamacpp:" + name)) == 1)

case, also, more = source("llama.cpp", "test_security.py")
case("key-health", "a server with keys, /health without one -> 200", lambda s: s.call("/health", server=s.keyed)["status"] == "ok")
case("key-models", "the same, /models without one -> 200", lambda s: s.call("/models", server=s.keyed)["data"], differs="401: keys guard everything but health, the names of models included")
case("key-page", "the same, the page without one -> 200", lambda s: "<!doctype html>" in s.call("/", server=s.keyed).raw.lower(), differs="401: keys guard the page's view of the batch, too")
for name, headers in (("none", {}), ("wrong", {"Authorization": "Bearer invalid-key"})):
    case(f"key-{name}", f"{name} -> 401, authentication_error",
         lambda s, h=headers: (r := s.call("/v1/completions", {"prompt": "x"}, headers=h, server=s.keyed)).status == 401 and r.error["type"] == "authentication_error")
for name, headers in (("bearer", {"Authorization": "Bearer " + KEY}), ("x-api-key", {"X-Api-Key": KEY})):
    case(f"key-right-{name}", f"the key as {name} -> answered", lambda s, h=headers: s.call("/v1/completions", {"prompt": "x", "max_tokens": 2}, headers=h, server=s.keyed).text)
case("key-chat", "the key, through chat -> one choice", lambda s: len(s.call("/v1/chat/completions", {"messages": [USER], "max_tokens": 2}, headers={"Authorization": "Bearer " + KEY}, server=s.keyed).choices) == 1)
case("cors-default", "a preflight of any page to a server without options -> allowed", lambda s: preflight(s, "http://localhost").headers["Access-Control-Allow-Origin"] is not None,
     differs="refused, as vLLM does by default: a page that somebody visits must not use a server on his machine; --allowed-origins")
case("cors-credentials", "a preflight -> Access-Control-Allow-Credentials", lambda s: preflight(s, "https://web.mydomain.fr", trusting(s)).headers["Access-Control-Allow-Credentials"] == "true",
     differs="not allowed, as vLLM does by default: keys go in a header of their own, and there are no cookies")
case("cors-allowed", "a preflight of an allowed page -> 200 and its origin", lambda s: (r := preflight(s, "https://web.mydomain.fr", trusting(s))).ok and r.headers["Access-Control-Allow-Origin"] == "https://web.mydomain.fr")
case("cors-methods", "the same -> GET and POST allowed", lambda s: {"GET", "POST"} <= set(preflight(s, "https://web.mydomain.fr", trusting(s)).headers["Access-Control-Allow-Methods"].split(", ")))
case("cors-headers", "the same -> the headers that were asked for", lambda s: "authorization" in preflight(s, "https://web.mydomain.fr", trusting(s)).headers["Access-Control-Allow-Headers"])

case, also, more = source("llama.cpp", "test_http_trace.py")
more("method-trace", "TRACE -> refused", lambda s: s.exchange(b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").status in (405, 501))

case, also, more = source("llama.cpp", "test_log_injection.py")
more("path-with-newlines", "a path with escaped newlines -> 404, in JSON, of one line", lambda s: (r := s.get("/no%0d%0aX-Evil:%201")).refused(status=404) and "X-Evil" not in r.headers)

# ---- vLLM -----------------------------------------------------------------------------------------------------

case, also, more = source("vLLM", "serve/instrumentator/test_basic.py")
case("version", "GET /version -> the version alone", lambda s: set((r := s.get("/version")).body) == {"version"} and re.fullmatch(r"\d+\.\d+\.\d+", r["version"]))
case("vllm-health", "GET /health -> 200", lambda s: s.get("/health")["status"] == "ok")
case("cancellation", "30 clients that go away -> the next is answered at once",
     lambda s: [s.hang_up("/v1/chat/completions", LONG) for _ in range(30)] and (t := time.monotonic()) and s.chat().answered and time.monotonic() - t < 5)
case("content-type", "a body sent as a form -> refused", lambda s: s.call("/v1/chat/completions", {"messages": [USER], "max_tokens": 2}, headers={"Content-Type": "application/x-www-form-urlencoded"}).status in (400, 415),
     differs="taken, as llama-server does: `curl -d` sends that type; a browser's form is known by its Origin and refused")
case("server-load", "GET /load -> how many run", lambda s: s.get("/load")["server_load"] == 0)
more("content-type-of-a-page", "the same from a web page -> refused", lambda s: s.call("/v1/chat/completions", {"messages": [USER]}, headers={"Content-Type": "text/plain", "Origin": "https://x.example"}).refused(status=415))

case, also, more = source("vLLM", "serve/instrumentator/test_metrics.py")
GAUGES = ("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason", "kv_cache_usage_perc", "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
          "prompt_tokens_total", "generation_tokens_total", "cache_config_info", "request_success_total")
HISTOGRAMS = ("iteration_tokens_total", "request_prompt_tokens", "request_generation_tokens", "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
              "request_queue_time_seconds", "request_inference_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds", "request_num_preemptions", "request_params_n",
              "request_params_max_tokens")
case("vllm-metrics-exist", "GET /metrics -> their 11 gauges and counters, and 13 histograms with sum, count and buckets",
     lambda s: s.complete().ok and all(metric(s, "vllm:" + name) for name in GAUGES) and all(
         metric(s, f"vllm:{h}_sum") and metric(s, f"vllm:{h}_bucket", 'le="+Inf"') == metric(s, f"vllm:{h}_count") != [] for h in HISTOGRAMS))
also("vllm-metrics-labels", "the same -> vllm:cache_config_info says how many tokens fit, and how many requests of full length",
     lambda s: metric(s, "vllm:cache_config_info", 'kv_cache_size_tokens="') and metric(s, "vllm:cache_config_info", 'kv_cache_max_concurrency="'))
case("vllm-metrics-counts", "one request of 8 tokens -> 13 counts, 3 sums and 3 totals grow by what it was",
     lambda s: rise(s, lambda: s.complete("counted", ignore_eos=True), lambda prompt: {
         "prompt_tokens_total": prompt, "generation_tokens_total": 8, "request_success_total": 1, "inter_token_latency_seconds_count": 7, "iteration_tokens_total_count": 8,
         "request_prompt_tokens_sum": prompt, "request_generation_tokens_sum": 8, "request_params_max_tokens_sum": 8,
         **{f"{h}_count": 1 for h in HISTOGRAMS if h not in ("inter_token_latency_seconds", "iteration_tokens_total")}}))
also("vllm-metrics-counts-computed", "the same -> vllm:iteration_tokens_total_sum grows by all tokens of prompt and answer",
     lambda s: rise(s, lambda: s.complete("computed", ignore_eos=True), lambda prompt: {"iteration_tokens_total_sum": prompt + 8}),
     differs="by those that were computed: the last one of an answer never is")
case("vllm-metrics-abort", "long requests, then their clients gone -> running and the cache's use above 0, then 0",
     lambda s: s.becomes(s.is_idle) and (c := [s.server.raw(post("/v1/chat/completions", LONG)) for _ in range(3)])
     and s.becomes(lambda: metric(s, "vllm:num_requests_running")[0] > 0 and metric(s, "vllm:kv_cache_usage_perc")[0] > 0)
     and not [x.close() for x in c if x.close()] and s.becomes(lambda: s.is_idle() and metric(s, "vllm:kv_cache_usage_perc")[0] == 0, 5))

case, also, more = source("vLLM", "serve/tokenize/test_tokenization.py")
case("vllm-tokenize", "a prompt, add_special_tokens false and true -> tokens, their count, max_model_len, token_strs null",
     lambda s: all((r := s.call("/tokenize", {"prompt": "vllm1 This is a test prompt.", "add_special_tokens": special, "model": "qwen3"}))["count"] == len(r["tokens"]) > 5
                   and r["max_model_len"] == 4096 and r["token_strs"] is None for special in (False, True)))
CHAT = [{"role": "user", "content": "Hi there!"}, {"role": "assistant", "content": "Nice to meet you!"}, {"role": "user", "content": "A question?"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}}]
for tools in (None, TOOLS):
    case(f"vllm-tokenize-chat-{'tools' if tools else 'plain'}", f"messages, tools {bool(tools)}, with every add_generation_prompt, continue_final_message and add_special_tokens -> the tokens of the rendered text",
         lambda s, tools=tools: all(
             s.call("/tokenize", body := {"messages": CHAT + [{"role": "assistant", "content": "Sure,"}] * go_on, "add_generation_prompt": add, "continue_final_message": go_on, "tools": tools,
                                          "add_special_tokens": special})["tokens"] == s.ids(s.call("/apply-template", body)["prompt"]) != []
             for add, go_on in ((False, False), (True, False), (False, True)) for special in (False, True)))
case("vllm-tokenize-strs", "return_token_strs -> a string for each, as the vocabulary has it", lambda s: (r := s.call("/tokenize", {"prompt": "token_strs test", "return_token_strs": True}))["token_strs"][-1][0] == "\u0120",
     differs="as the text has it: a space is a space, not a letter that stands for its byte")
more("vllm-tokenize-strs-own", "the same -> a string for each, together the prompt", lambda s: "".join((r := s.call("/tokenize", {"prompt": "token_strs!", "return_token_strs": True}))["token_strs"]) == "token_strs!"
     and len(r["token_strs"]) == r["count"])
case("vllm-detokenize", "tokens -> the prompt, and nothing else", lambda s: s.call("/detokenize", {"model": "qwen3", "tokens": s.ids("This is a test prompt.")}).body == {"prompt": "This is a test prompt."},
     differs="beside it stands the same as content, which llama-server's clients read")
more("vllm-detokenize-own", "tokens -> the prompt", lambda s: s.call("/detokenize", {"model": "qwen3", "tokens": s.ids("This is a test prompt.")})["prompt"] == "This is a test prompt.")
case("vllm-tokenizer-info", "GET /tokenizer_info -> a tokenizer_class", lambda s: s.get("/tokenizer_info")["tokenizer_class"])
case("vllm-tokenizer-info-types", "the same -> strings and numbers where they belong, or null",
     lambda s: isinstance((r := s.get("/tokenizer_info"))["eos_token"], str) and isinstance(r["model_max_length"], int)
     and all(isinstance(r.body.get(k), (str, type(None))) for k in ("bos_token", "pad_token", "unk_token", "chat_template")))
case("vllm-tokenizer-info-agrees", "the same -> its length at least that of /tokenize", lambda s: s.get("/tokenizer_info")["model_max_length"] >= s.call("/tokenize", {"prompt": "x"})["max_model_len"])
case("vllm-tokenizer-info-template", "the same -> a template that is text, or none", lambda s: (t := s.get("/tokenizer_info")["chat_template"]) is None or t.strip() != "")
for name, body in (("nothing", {}), ("number", {"prompt": 5}), ("bad-model", {"prompt": "x", "model": "nope"})):
    more(f"vllm-tokenize-{name}", f"/tokenize of {body} -> an error of the client's", lambda s, body=body: s.call("/tokenize", body).status in (400, 404))

case, also, more = source("vLLM", "serve/middleware/test_optional_middleware.py")
case("no-key-needed", "a server without keys -> /v1/models is open", lambda s: s.get("/v1/models")["data"])
case("key-missing", "a server with keys, none sent -> 401", lambda s: s.call("/v1/models", server=s.keyed).status == 401)
case("key-passed", "the key -> 200", lambda s: s.call("/v1/models", headers={"Authorization": "Bearer " + KEY}, server=s.keyed)["data"])
case("key-not-for-health", "health needs none -> 200", lambda s: s.call("/health", server=s.keyed)["status"] == "ok")
case("request-id-none", "a server that was not told to -> no X-Request-Id", lambda s: (r := s.get("/health"))["status"] == "ok" and "X-Request-Id" not in r.headers,
     differs="always there: who reports a fault can name the request")
case("request-id-new", "asked for -> one of 32 letters", lambda s: len(s.get("/health").headers["X-Request-Id"]) == 32)
more("request-id-differs", "three requests -> an id each", lambda s: len({s.get("/health").headers["X-Request-Id"] for _ in range(3)}) == 3)
case("request-id-own", "the client's own -> sent back", lambda s: s.get("/health", X_Request_Id="Custom").headers["X-Request-Id"] == "Custom")

case, also, more = source("vLLM", "serve/middleware/test_authentication_middleware.py")
ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/tokenize", "/detokenize", "/apply-template")
READ = ("/v1/models", "/metrics", "/version", "/props", "/slots", "/stats", "/tokenizer_info", "/")
case("key-guards", "every route without a key and with a wrong one -> 401, with the right one -> not",
     lambda s: all(s.call(path, body, headers=h, server=s.keyed).status in good for path, body in [(p, {}) for p in ROUTES] + [(p, None) for p in READ]
                   for h, good in (({}, (401,)), ({"Authorization": "Bearer wrong"}, (401,)), ({"Authorization": "Bearer " + KEY}, (200,) if body is None else (400,)))))
case("key-guards-not-health", "health without a key -> 200", lambda s: s.call("/health", server=s.keyed)["status"] == "ok")
more("key-prefix", "the begin of a key -> 401", lambda s: s.call("/v1/models", headers={"Authorization": "Bearer " + KEY[:-1]}, server=s.keyed).status == 401)
more("key-other-scheme", "Basic with the key -> 401", lambda s: s.call("/v1/models", headers={"Authorization": "Basic " + KEY}, server=s.keyed).status == 401)

case("options-bare", "OPTIONS that asks for no origin -> 401, as any request", lambda s: s.call("/metrics", method="OPTIONS", server=s.keyed).status == 401)
also("options-bare-key", "the same with the key -> not 401", lambda s: s.call("/metrics", method="OPTIONS", headers={"Authorization": "Bearer " + KEY}, server=s.keyed).status == 405)
case("options-no-origin", "OPTIONS with Access-Control-Request-Method alone -> 401", lambda s: s.call("/metrics", method="OPTIONS", headers={"Access-Control-Request-Method": "GET"}, server=s.keyed).status == 401)
case("options-no-data", "a preflight of /metrics, which carries no key -> 200, its origin allowed, none of the metrics",
     lambda s: (r := s.call("/metrics", method="OPTIONS", headers={"Origin": "http://dashboard.example", "Access-Control-Request-Method": "GET"},
                            server=s.start("--api-key-file", s.keys, "--allowed-origins", '["*"]'))).ok and r.headers["Access-Control-Allow-Origin"] == "*" and "vllm:" not in r.raw)
case("health-slash", "/health/ without a key -> 200", lambda s: s.call("/health/", server=s.keyed)["status"] == "ok")
case("models-slash", "/v1/models/ without a key -> 401", lambda s: s.call("/v1/models/", server=s.keyed).status == 401)
also("models-slash-key", "/v1/models/ with it -> 200", lambda s: s.call("/v1/models/", headers={"Authorization": "Bearer " + KEY}, server=s.keyed)["data"])

case, also, more = source("vLLM", "serve/middleware/test_x_request_id.py")
case("request-id-one", "the client's own id -> sent back, once", lambda s: s.get("/health", X_Request_Id="caller").headers.get_all("X-Request-Id") == ["caller"])
case("request-id-uuid", "no id -> a UUID of 32 hex digits", lambda s: re.fullmatch("[0-9a-f]{32}", s.get("/health").headers["X-Request-Id"]))

case, also, more = source("vLLM", "serve/middleware/test_cors_middleware.py")
case("vllm-cors-read", "by default, a page that reads -> answered, but no page may see it", lambda s: (r := s.get("/v1/models", Origin="http://attacker.example"))["data"] and "Access-Control-Allow-Origin" not in r.headers)
also("vllm-cors-preflight", "by default, a preflight -> 400 and no such header", lambda s: (r := preflight(s, "http://attacker.example")).status == 400 and "Access-Control-Allow-Origin" not in r.headers)
case("vllm-cors-trusted", "an allowed page reads -> its origin is named", lambda s: s.call("/v1/models", headers={"Origin": "https://web.mydomain.fr"}, server=trusting(s)).headers["Access-Control-Allow-Origin"]
     == "https://web.mydomain.fr")
also("vllm-cors-trusted-preflight", "and asks first -> 200, and its origin is named", lambda s: (r := preflight(s, "https://web.mydomain.fr", trusting(s), "/v1/chat/completions")).ok and r.headers["Access-Control-Allow-Origin"] == "https://web.mydomain.fr")
more("vllm-cors-other", "another page at such a server -> 400", lambda s: preflight(s, "https://other.example", trusting(s)).status == 400)
more("vllm-cors-error", "an error to an allowed page -> it may read that, too",
     lambda s: (r := s.call("/v1/chat/completions", {}, headers={"Origin": "https://web.mydomain.fr", "Content-Type": "application/json"}, server=trusting(s))).status == 400 and r.headers["Access-Control-Allow-Origin"])
more("vllm-cors-star", '--allowed-origins \'["*"]\' -> any page', lambda s: preflight(s, "https://any.example", s.start("--allowed-origins", '["*"]')).headers["Access-Control-Allow-Origin"] == "*")

case, also, more = source("vLLM", "serve/exception_handling/test_validation_exception_handler.py")
for name, fields in (("missing", {}), ("wrong-type", {"messages": "not-a-list"})):
    case(f"error-param-{name}", f"messages {name} -> the error's param is body.messages", lambda s, fields=fields: s.call("/v1/chat/completions", fields).error["param"] == "body.messages",
         differs='"messages", as OpenAI names it')
    more(f"error-param-{name}-own", "the same -> messages", lambda s, fields=fields: s.call("/v1/chat/completions", fields).error["param"] == "messages")
case("error-no-paths", "an error -> what is wrong, and nothing of the server's files", lambda s: (r := s.call("/v1/chat/completions", {"messages": "x"})).refused("messages") and "runtime/" not in r.raw
     and ".c" not in r.error["message"])
case("error-no-paths-missing", "a missing field -> the same", lambda s: (r := s.call("/v1/chat/completions", {})).refused("messages", "missing") and "runtime/" not in r.raw and ".c" not in r.error["message"])
case("error-bounded", "4000 wrong parts -> an error of less than 32 kB", lambda s: (r := s.call("/v1/responses", {"input": [{"type": "input_text", "text": 1}] * 4000})).refused("input") and len(r.raw) < 32000)
also("error-bounded-count", "the same -> says that there are 4000 mistakes", lambda s: s.call("/v1/responses", {"input": [{"type": "input_text", "text": 1}] * 4000}).refused("4000"),
     differs="the first mistake is told, and reading ends there")
case("error-container", "a list of 300 objects in the place of a number -> an error that says what it is and repeats none of it",
     lambda s: (r := s.call("/v1/completions", {"prompt": "x", "max_tokens": [{"text": "payload"}] * 300})).refused("max_tokens", "list") and "payload" not in r.raw)
case("error-long-value", "a value of 100 000 letters -> an error that does not repeat it", lambda s: (r := s.chat(max_tokens="A" * 100000)).refused("max_tokens") and len(r.raw) < 4000 and "AAAA" not in r.raw)
case("error-short-value", "a short string that is wrong -> an error that repeats it", lambda s: s.call("/v1/chat/completions", {"messages": "not-a-list"}).refused("not-a-list"),
     differs="it says what is expected and of what type the value is; a message's text stays out of logs")
case("error-place", "a mistake deep inside -> an error that names the place, without names of types", lambda s: (r := s.respond([{"role": "user", "content": 12345}])).refused("input[0].content")
     and r.error["param"] == "input[0].content")

case, also, more = source("vLLM", "serve/exception_handling/test_error_sanitization.py")
more("error-json", "a broken body -> 400 in JSON with message, type, param and code", lambda s: {"message", "type", "param", "code"} <= set(s.call("/v1/completions", b"{").error))
more("not-found", "a path that is none -> 404 in JSON", lambda s: s.get("/v1/nowhere").refused(status=404))
more("not-allowed", "GET for a route of POST -> 405 with Allow", lambda s: (r := s.get("/v1/chat/completions")).status == 405 and r.headers["Allow"] == "POST")

case, also, more = source("vLLM", "serve/lora/test_serving_models.py")
more("model-card", "GET /v1/models -> object list, each with id, object, created, owned_by, max_model_len",
     lambda s: (r := s.get("/v1/models"))["object"] == "list" and {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"} <= set(r["data"][0]))
more("model-by-name", "GET /v1/models/NAME -> its card", lambda s: s.get("/v1/models/qwen3")["id"] == "qwen3")
more("model-unknown", "another name -> 404", lambda s: s.get("/v1/models/nope").refused("nope", status=404))

case, also, more = source("vLLM", "serve/instrumentator/test_uds.py")
case("socket", "GET /version through a socket of the file system -> the version", lambda s: through_socket(s, "/version")["version"] == s.get("/version")["version"])
more("two-servers", "another server beside -> its own answers", lambda s: s.call("/health", server=s.keyed)["status"] == s.get("/health")["status"] == "ok")

case, also, more = source("vLLM", "launchers/test_launcher.py")
for what, data, status in (("line", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414), ("headers", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 431)):
    more(f"too-long-{what}", f"70 kB of {what} -> {status}, in JSON", lambda s, data=data, status=status: s.exchange(data).refused("bytes", status=status))
more("too-long-body", "a body beyond the limit -> 413, in JSON", lambda s: s.exchange(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n").refused("bytes", status=413))

case, also, more = source("vLLM", "openai/completion/test_shutdown.py")
STORY = {"prompt": "Write a story: ", "max_tokens": 3000, "ignore_eos": True}


def refuses(s, server):
    try:
        return s.call("/v1/completions", {"prompt": "x"}, server=server).status == 503
    except OSError:  # it has ended
        return True


def while_running(s, server):
    """A request that runs, and its answer; SIGTERM comes meanwhile."""
    out = []
    thread = threading.Thread(target=lambda: out.append(s.call("/v1/completions", STORY, server=server)))
    thread.start()
    s.becomes(lambda: server.metric("vllm:num_requests_running") > 0)
    server.process.send_signal(signal.SIGTERM)
    refused = s.becomes(lambda: refuses(s, server), 1)
    thread.join(30)
    server.process.wait(10)
    server.end()
    return out[0], refused


case("shutdown-waits", "SIGTERM while a request runs -> it is answered in full, and others are refused",
     lambda s: (r := while_running(s, s.begin()))[0].usage["completion_tokens"] == 3000 and r[1])
case("shutdown-refuses", "requests after SIGTERM -> refused", lambda s: (o := s.begin()) and (o.process.send_signal(signal.SIGTERM) or s.becomes(lambda: refuses(s, o), 1)) and o.process.wait(5) == 0 and (o.end() or True))
case("shutdown-gone", "SIGTERM, then a request -> fails; the process has ended", lambda s: (o := s.begin()) and s.call("/v1/completions", {"prompt": "x", "max_tokens": 1}, server=o).ok
     and ended(o, signal.SIGTERM, 5) and refuses(s, o))
case("shutdown-idle", "SIGTERM with no time to drain to a fresh server -> ends soon, status 0", lambda s: ended(s.begin("--drain-timeout", 0), signal.SIGTERM, 4))
case("shutdown-used", "the same to one that has answered -> ends soon, status 0", lambda s: (o := s.begin("--drain-timeout", 0)) and all(
    s.call("/v1/completions", {"prompt": "x", "max_tokens": 10}, server=o).ok for _ in range(2)) and ended(o, signal.SIGTERM, 4))
case("shutdown-short", "a second to drain, while a longer request runs -> ends soon after it, status 0",
     lambda s: (o := s.begin("--drain-timeout", 1)) and [o.raw(post("/v1/chat/completions", {**LONG, "n": 16})) for _ in range(16)] and ended(o, signal.SIGTERM, 11))
case("shutdown-at-once", "SIGTERM with no time to drain, while long requests run -> ends soon, and they are cut",
     lambda s: (o := s.begin("--drain-timeout", 0)) and (c := [o.raw(post("/v1/chat/completions", LONG)) for _ in range(3)]) and s.becomes(lambda: o.metric("vllm:num_requests_running") == 3)
     and ended(o, signal.SIGTERM, 5) and all(b'"code": "draining"' in read_all(x) for x in c))
