"""Structured output with the vocabularies of Qwen3 and Gemma3: texts drawn at random through the masks parse, and
`jsonschema`, which shares nothing with us, finds them valid."""
import datetime
import json
import pathlib
import random
import re
import subprocess

import jsonschema
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
WALK = ROOT / "build" / "release" / "tests" / "test_grammar_walk"
MODELS = ["qwen3", "gemma3"]
FORMATS = jsonschema.FormatChecker()
FORMATS.checks("date-time", raises=ValueError)(datetime.datetime.fromisoformat)
FORMATS.checks("time", raises=ValueError)(datetime.time.fromisoformat)

# What clients send: Pydantic's and Zod's output, OpenAI's own examples, tool arguments.
SCHEMAS = [
    {"type": "object", "properties": {"steps": {"type": "array", "items": {"$ref": "#/$defs/step"}}, "final_answer": {"type": "string"}},
     "$defs": {"step": {"type": "object", "properties": {"explanation": {"type": "string"}, "output": {"type": "string"}},
                        "required": ["explanation", "output"], "additionalProperties": False}},
     "required": ["steps", "final_answer"], "additionalProperties": False},
    {"type": "object", "properties": {"value": {"type": "number"}, "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
     "required": ["value", "next"], "additionalProperties": False},
    {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "definitions": {"c": {"enum": ["red", "grün", "\"blue\""]}},
     "properties": {"color": {"$ref": "#/definitions/c"}, "rgb": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                                                   "minItems": 3, "maxItems": 3}}, "required": ["color", "rgb"]},
    {"title": "Event", "type": "object", "properties": {
        "id": {"type": "string", "format": "uuid"}, "day": {"type": "string", "format": "date"},
        "at": {"type": "string", "format": "date-time"}, "mail": {"type": "string", "format": "email"},
        "host": {"type": "string", "format": "ipv4"}, "v6": {"type": "string", "format": "ipv6"}, "t": {"type": "string", "format": "time"}},
     "required": ["id", "day", "at", "mail", "host", "v6", "t"]},
    {"type": "object", "properties": {"name": {"type": "string", "minLength": 3, "maxLength": 12}, "code": {"type": "string", "pattern": "^[A-Z]{2}\\d+$"},
                                      "free": {"type": "string", "pattern": "x\\\\y"}, "short": {"type": "string", "pattern": "^é+", "maxLength": 5}},
     "required": ["name", "code", "free"]},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": ["boolean", "null"]}},
    {"type": "object", "additionalProperties": {"type": "string", "maxLength": 4}, "maxProperties": 3},
    {"type": "array", "prefixItems": [{"const": "point"}, {"type": "number", "exclusiveMinimum": -90.5, "maximum": 90.25}],
     "items": {"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 1000}, "minItems": 2, "maxItems": 5},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["kind", "x"]},
               {"type": "object", "properties": {"kind": {"const": "b"}, "y": {"type": "boolean"}}, "required": ["kind", "y"]}]},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]},
               {"type": "object", "properties": {"a": {"maximum": 9}, "b": {"type": "string", "maxLength": 9}}, "required": ["b"]}]},
    {"type": "object", "properties": {f"p{i}": {"type": "integer", "minimum": 0, "maximum": 9} for i in range(40)}, "required": ["p7", "p31"]},
    {"type": "object"},
    {},
]


def ask(model, seed, lines):
    r = subprocess.run([WALK, "--walk", model, str(seed)], cwd=ROOT, input="".join(json.dumps(x) + "\n" for x in lines), capture_output=True,
                       text=True, timeout=600)
    assert r.returncode == 0, r.stderr
    return [json.loads(line, strict=False) for line in r.stdout.split("\n")[:-1]]


def check(schema, text):
    value = json.loads(text)
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(value)


def random_schema(rng, depth=0):
    kinds = ["string", "integer", "number", "const", "pattern", "words"] + (["object", "array", "any_of"] * 2 if depth < 3 else [])
    kind = rng.choice(kinds)
    low = rng.randint(-1000, 1000)
    if kind == "string":
        least = rng.randint(0, 4)
        return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 12)}
    if kind == "integer":
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 10 ** rng.randint(0, 6))}
    if kind == "number":
        return {"type": "number", rng.choice(["minimum", "exclusiveMinimum"]): low / 8, rng.choice(["maximum", "exclusiveMaximum"]): low / 8 + rng.random() + 0.01}
    if kind == "const":
        return {"const": rng.choice(["ß\n\"\\", 3, None, True, [1, {"a": "\u2028"}], -2.5])}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f0-9]{4,8}$", "^(ab|c)+d?$", "q", "^[^a-z\"]*$", "^\\w+ \\d{1,3}$", "[.]$"])}
    if kind == "words":
        return {"enum": rng.sample(["alpha", "alphabet", "beta", "b", "", "β"], rng.randint(1, 5))}
    if kind == "array":
        least = rng.randint(0, 2)
        return {"type": "array", "items": random_schema(rng, depth + 1), "minItems": least, "maxItems": least + rng.randint(0, 3)}
    if kind == "any_of":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    names = rng.sample(["a", "ab", "abc", "name", "größe", "x y", "\"", "z/~"], rng.randint(0, 5))
    schema = {"type": "object", "properties": {n: random_schema(rng, depth + 1) for n in names}, "required": [n for n in names if rng.random() < 0.5]}
    if rng.random() < 0.5:
        schema["additionalProperties"] = rng.choice([False, {"type": "boolean"}])
    return schema


@pytest.mark.parametrize("model", MODELS)
def test_schemas(model):
    answers = ask(model, 1, [{"schema": s, "n": 8} for s in SCHEMAS])
    ended = 0
    for schema, answer in zip(SCHEMAS, answers, strict=True):
        assert "texts" in answer, (schema, answer)
        for text in filter(lambda t: t is not None, answer["texts"]):
            check(schema, text)
            ended += 1
    assert ended >= 7 * len(SCHEMAS)


@pytest.mark.parametrize("model", MODELS)
def test_random_schemas(model):
    rng = random.Random(7)
    schemas = [random_schema(rng) for _ in range(150)]
    answers = ask(model, 2, [{"schema": s, "n": 3} for s in schemas])
    ended = 0
    for schema, answer in zip(schemas, answers, strict=True):
        assert "texts" in answer, (schema, answer)
        for text in filter(lambda t: t is not None, answer["texts"]):
            check(schema, text)
            ended += 1
    assert ended >= 400


@pytest.mark.parametrize("model", MODELS)
def test_expressions(model):
    patterns = [r"[A-Z][a-z]+ [A-Z]\. \d{4}", r"(yes|no)( really)*!", "[\u3040-\u30ff]{2,20}", r"\+?\d{1,3}([ -]\d{2,4}){2,4}",
                r"[^\x00-\x7f]{3,9}x", "(?:<[a-z]+>[^<>]{0,20}</[a-z]+>)+"]
    for pattern, answer in zip(patterns, ask(model, 3, [{"regex": p, "n": 8} for p in patterns]), strict=True):
        for text in filter(lambda t: t is not None, answer["texts"]):
            assert re.fullmatch(pattern, text, re.A), (pattern, text)


def random_regex(rng, depth=0):
    kind = rng.choice(["text", "text", "class", "any"] + ["cat", "alt", "star", "braces", "group"] * (depth < 4))
    if kind == "text":
        return rng.choice(["a", "b", "é", "ab", "\\.", "-", "\\n", "0"])
    if kind == "class":
        return rng.choice(["[ab]", "[^a]", "[a-c0-2]", "\\d", "\\w", "\\S", "[^\\W0]", "[\\-a]", "[é-ü]"])
    if kind == "any":
        return "."
    inner = random_regex(rng, depth + 1)
    if kind == "cat":
        return inner + random_regex(rng, depth + 1)
    if kind == "alt":
        return f"(?:{inner}|{random_regex(rng, depth + 1)})"
    if kind == "group":
        return f"({inner})"
    least = rng.randint(0, 3)
    return f"(?:{inner})" + (rng.choice("*+?") if kind == "star" else f"{{{least},{least + rng.randint(0, 2)}}}")


def test_random_expressions():
    """The same answers as Python's re, about texts that match and texts that nearly do."""
    rng = random.Random(3)
    lines = []
    for _ in range(1500):
        regex = random_regex(rng)
        texts = ["".join(rng.choice("aabbcé.-\n01") for _ in range(rng.randint(0, 6))) for _ in range(30)]
        lines.append({"regex": regex, "n": 2, "match": texts})
    matched = 0
    for line, answer in zip(lines, ask("qwen3", 6, lines), strict=True):
        want = [bool(re.fullmatch(line["regex"], t, re.A)) for t in line["match"]]
        assert answer["matches"] == want, line["regex"]
        assert all(re.fullmatch(line["regex"], t, re.A) for t in answer["texts"] if t is not None), (line["regex"], answer["texts"])
        matched += sum(want)
    assert matched > 1000


def value_of(rng, schema):
    """A random value of a schema of random_schema, or nearly one."""
    if "anyOf" in schema:
        return value_of(rng, rng.choice(schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return schema.get("const", None) if "const" in schema else rng.choice(schema["enum"] + ["alph"])
    if schema["type"] == "string":
        return rng.choice(["", "x", "\n", "abab", "abcd", "\u2028é", "10.", "s 12", "a" * 13, "\"\\", "deadbeef"])
    if schema["type"] == "integer":
        return rng.choice([schema["minimum"], schema["maximum"], schema["minimum"] - 1, schema["maximum"] + 1, 0, (schema["minimum"] + schema["maximum"]) // 2])
    if schema["type"] == "number":
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        return rng.choice([low, high, (low + high) / 2, low + 0.005, high - 0.005, low - 0.25, high + 0.25])
    if schema["type"] == "array":
        return [value_of(rng, schema["items"]) for _ in range(rng.randint(0, 4))]
    value = {k: value_of(rng, v) for k, v in schema["properties"].items() if k in schema["required"] or rng.random() < 0.5}
    if rng.random() < 0.2:
        value["other"] = True
    return value


def closed(schema):
    """As we read it: declared properties alone, unless others are allowed by name."""
    if isinstance(schema, dict):
        schema = {k: closed(v) for k, v in schema.items()}
        if "properties" in schema and isinstance(schema.get("required"), list):
            schema.setdefault("additionalProperties", False)
    return [closed(x) for x in schema] if isinstance(schema, list) else schema


def test_random_values():
    """Compact texts of values in the schema's order match exactly where jsonschema says valid."""
    rng = random.Random(11)
    schemas = [random_schema(rng) for _ in range(800)]
    lines, counts = [], [0, 0]
    for schema in schemas:
        values = [value_of(rng, schema) for _ in range(20)]
        lines.append({"schema": schema, "match": [json.dumps(v, ensure_ascii=False, separators=rng.choice([(",", ":"), (", ", ": ")])) for v in values]})
    for line, answer in zip(lines, ask("gemma3", 8, lines), strict=True):
        validator = jsonschema.Draft202012Validator(closed(line["schema"]))
        for text, got in zip(line["match"], answer["matches"], strict=True):
            assert got == validator.is_valid(json.loads(text)), (line["schema"], text)
            counts[got] += 1
    assert min(counts) > 2000, counts


def test_arithmetic_grammar():
    grammar = 'root ::= term (op term)*\nop ::= [-+*]\nterm ::= [1-9] [0-9]? | "(" root ")"\n'
    texts = [t for t in ask("qwen3", 4, [{"gbnf": grammar, "n": 20}])[0]["texts"] if t is not None]
    assert len(texts) >= 10
    for text in texts:
        assert isinstance(eval(text, {"__builtins__": {}}), int)


def test_refusals_name_their_place():
    answers = ask("qwen3", 5, [{"schema": {"properties": {"a": {"items": {"contains": {}}}}}}, {"regex": "a(?=b)"}, {"gbnf": "root ::= a"}])
    assert "/properties/a/items/contains" in answers[0]["error"]
    assert "byte 2" in answers[1]["error"]
    assert "line 1" in answers[2]["error"]
