"""For schemathesis: three of four bodies lose what makes the server refuse them at once, so that many are generated from."""
import json
import zlib

import schemathesis

FORMATS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema", "grammar")


def one_format(body, pick):
    given = [f for f in FORMATS if body.get(f) is not None]
    for f in given:
        if pick % 3 or f != given[pick % len(given)]:
            del body[f]


def without_nul(value):
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [without_nul(v) for v in value]
    return {without_nul(k): without_nul(v) for k, v in value.items()} if isinstance(value, dict) else value


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    pick = zlib.crc32(json.dumps(body, sort_keys=True, default=str).encode())
    if pick % 4 == 0:
        return body
    body = without_nul(body)
    one_format(body, pick // 4)
    if body.get("tool_choice") is not None and not body.get("tools"):
        del body["tool_choice"]
    if body.get("prompt_token_ids") is not None:  # or messages, or what renders them
        del body["prompt_token_ids"]
    if body.get("prompt_logprobs") is not None:
        body["stream"] = False
    if body.get("top_logprobs"):
        body["logprobs"] = True
    if body.get("stream_options") is not None and body.get("prompt_logprobs") is None:
        body["stream"] = True
    if body.get("continue_final_message"):
        body["add_generation_prompt"] = False
    return body
