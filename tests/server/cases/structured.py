"""Structured output: schemas, grammars, regular expressions, in every API and spelling. The model's weights are random: only the rule makes it obey."""
import json
import re

import jsonschema

from cases import source

PROFILE = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
                                            "skills": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 3}},
           "required": ["name", "age", "skills"], "additionalProperties": False}
ADDRESS = r"((25[0-5]|2[0-4]\d|1\d\d|[1-9]\d|\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]\d|\d)"


def valid(text, schema):
    jsonschema.validate(json.loads(text), schema)
    return True


def as_format(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


case, also, more = source("llama.cpp", "test_chat_completion.py")
for name, schema in (("enum", {"enum": ["red", "amber", 3]}), ("boolean", {"type": "boolean"}), ("null", {"type": "null"}), ("any-of", {"anyOf": [{"const": 1}, {"const": "one"}]}),
                     ("nested", {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["b"],
                                                                                      "additionalProperties": False}}, "required": ["a"], "additionalProperties": False}),
                     ("list", {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}), ("string-length", {"type": "string", "minLength": 2, "maxLength": 4}),
                     ("pattern", {"type": "string", "pattern": "^[a-c]{3}$"}), ("format-date", {"type": "string", "format": "date"})):
    more(f"schema-{name}", f"a schema with {name} -> the answer is valid", lambda s, schema=schema: valid(s.plain(**as_format(schema), max_tokens=120, temperature=1, seed=1).text, schema))
for name, grammar, expect in (("sequence", 'root ::= "ab" "cd"', "abcd"), ("choice", 'root ::= "yes" | "no"', "yes|no"), ("class", "root ::= [a-c]{2} [0-9]", "[a-c]{2}[0-9]"),
                              ("rules", 'root ::= item "," item\nitem ::= "x" | "y"', "[xy],[xy]"), ("optional", 'root ::= "a"? "b"+ "!"', "a?b+!")):
    more(f"grammar-{name}", f"a grammar ({name}) -> a sentence of it", lambda s, g=grammar, expect=expect: re.fullmatch(expect, s.plain(grammar=g, temperature=1, seed=2, logit_bias={}).text))
more("grammar-and-format", "a grammar and a response_format -> 400", lambda s: s.plain(grammar='root ::= "a"', response_format={"type": "json_object"}).refused())
more("grammar-without-root", "a grammar without root -> 400", lambda s: s.plain(grammar='a ::= "a"').refused())
more("grammar-not-text", "a grammar that is a number -> 400", lambda s: s.plain(grammar=5).refused("grammar"))

case, also, more = source("vLLM", "openai/chat_completion/test_chat.py")
case("json", "structured_outputs.json, three seeds -> valid profiles, not all alike",
     lambda s: len({t for x in (1, 2, 3) if valid(t := s.plain(structured_outputs={"json": PROFILE}, max_tokens=300, temperature=1, seed=x).text, PROFILE)}) > 1)
case("regex", "structured_outputs.regex of an address, three seeds -> they match, not all alike",
     lambda s: (texts := [s.plain(structured_outputs={"regex": ADDRESS}, temperature=1, seed=x).text for x in (1, 2, 3)]) and all(re.fullmatch(ADDRESS, t) for t in texts) and len(set(texts)) > 1)
more("json-object-field", "structured_outputs.json_object -> begins with a brace", lambda s: s.plain(structured_outputs={"json_object": True}).text.startswith("{"))
case("json-schema-result", "json_schema with an integer `result` -> an object that has at most that",
     lambda s: valid(s.plain(**as_format({"type": "object", "properties": {"result": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["result"], "additionalProperties": False})).text,
                     {"required": ["result"]}))
more("json-stream", "the same as a stream -> the whole text", lambda s: s.same(*[s.plain(structured_outputs={"json": PROFILE}, max_tokens=300, temperature=1, seed=4, stream=x) for x in (True, False)]))
more("json-finish", "a schema that is fulfilled -> ended for stop", lambda s: s.plain(structured_outputs={"json": PROFILE}, max_tokens=300, temperature=1, seed=1).finish == "stop")
for name, value in (("choice", []), ("choice", [1]), ("choice", "a"), ("regex", 5), ("json", "text"), ("json_object", "yes")):
    more(f"bad-type-{name}-{json.dumps(value).strip('[]') or 'empty'}", f"structured_outputs.{name} {json.dumps(value)} -> 400 that names it",
         lambda s, name=name, value=value: (r := s.plain(structured_outputs={name: value})).refused() and name in r.error["param"])
more("two-rules", "a regex and a choice -> 400", lambda s: s.plain(structured_outputs={"regex": "a", "choice": ["a"]}).refused())

case, also, more = source("vLLM", "../v1/entrypoints/llm/test_struct_output_generate.py")
for keyword, schema in (("unknown type", {"type": "object", "properties": {"a": {"type": "thing"}}}), ("a lost $ref", {"$ref": "#/$defs/nowhere"})):
    more(f"unsupported-{keyword.split()[-1].strip('$')}", f"{keyword} -> 400", lambda s, schema=schema: s.plain(structured_outputs={"json": schema}).refused())
for name, schema in (("refs", {"$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 5}}, "type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1, "maxItems": 2}),
                     ("numbers", {"type": "object", "properties": {"x": {"type": "integer", "minimum": -3, "maximum": 3}}, "required": ["x"], "additionalProperties": False}),
                     ("type-list", {"type": ["boolean", "null"]}), ("all-optional", {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": False})):
    more(f"json-{name}", f"a schema with {name} -> valid", lambda s, schema=schema: valid(s.plain(structured_outputs={"json": schema}, max_tokens=120, temperature=1, seed=3).text, schema))
for name, regex in (("digits", r"\d{3}"), ("alternatives", "(cat|dog)s?"), ("email", r"[a-z]{2,6}@[a-z]{2,6}\.com"), ("class", "[^a-z]{1}[A-F0-9]{4}")):
    more(f"regex-{name}", f"{regex} -> matches", lambda s, regex=regex: re.fullmatch(regex, s.plain(structured_outputs={"regex": regex}, temperature=1, seed=9).text, re.S))
more("n-each-obeys", "n 3 -> each obeys", lambda s: all(c["message"]["content"] in ("left", "right") for c in s.plain(structured_outputs={"choice": ["left", "right"]}, n=3, temperature=1).choices))
more("batch-each-obeys", "two prompts -> each obeys", lambda s: all(re.fullmatch("[ab]{4}", c["text"]) for c in s.complete(["x", "y"], structured_outputs={"regex": "[ab]{4}"}).choices))
more("old-names", "guided_json, guided_regex, guided_choice -> as structured_outputs", lambda s: s.plain(guided_choice=["only"]).text == "only" and re.fullmatch("a+b", s.plain(guided_regex="a{2}b").text)
     and s.plain(guided_json={"const": 7}).text == "7")
