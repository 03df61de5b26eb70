#!/usr/bin/env python3
"""Write NAME/tokenizer.json and NAME.jsonl: features that neither Qwen3's nor Gemma3's tokenizer uses, and what
Hugging Face `tokenizers` 0.23.3 answers. Run it with that package installed; the output is the same each time."""
import copy
import json
import pathlib
import random

from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
MODELS = HERE.parent.parent / "models"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
WORDS = ["word", " word ", "swords", "word.", "w\u00f6rd", "\u0301word", "<l>", "  <l>\n", "<r> \t", "<lr>", "norm x", "norm  x", "<n>", "sw_n",
         "sw_nx", "<r><l>", "  <", "abcd", "abc", "bcd", "\u3000<lr>\u00a0", "the", "other", "\u00e9", "\u2581", "\n\n", "12345678", "it's", "IT'S",
         "'\u017f", "  ", "\t", "\u4f60\u597d", "\U0001F600", "<|begin|>", "<|eot|>", "<|im_end|>", "the end", "x"]


def add(j, content, **flags):
    ids = [a["id"] for a in j["added_tokens"]] + list(j["model"]["vocab"].values())
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    j["added_tokens"].append({"id": j["model"]["vocab"].get(content, max(ids) + 1), "content": content, **plain, **flags})


def llama3(j):
    j["normalizer"] = None
    j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3
    j["model"]["ignore_merges"] = True
    add(j, "<|begin|>", special=True)
    add(j, "<|eot|>", special=True)
    ids = {a["content"]: a["id"] for a in j["added_tokens"]}

    def token(name):
        return {"SpecialToken": {"id": name, "type_id": 0}}
    a, b = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    j["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing", "single": [token("<|begin|>"), a, token("<|eot|>")], "pair": [a, b],
         "special_tokens": {n: {"id": n, "ids": [ids[n]], "tokens": [n]} for n in ("<|begin|>", "<|eot|>")}}]}


def gpt2(j):
    j["normalizer"] = None
    j["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    j["model"]["merges"] = [" ".join(m) for m in j["model"]["merges"]]


def added(j):
    add(j, "word", single_word=True)
    add(j, "<l>", lstrip=True)
    add(j, "<r>", rstrip=True, special=True)
    add(j, "<lr>", lstrip=True, rstrip=True)
    add(j, "norm x", normalized=True)
    add(j, "<n>", normalized=True, lstrip=True, rstrip=True)
    add(j, "sw_n", normalized=True, single_word=True)
    add(j, "<r><l>")
    add(j, "  <", special=True)
    add(j, "ab")
    add(j, "abc", special=True)
    add(j, "bcd")
    add(j, "the", normalized=True)


def whole(j):
    j["model"]["ignore_merges"] = True


def main():
    for name, base, change in (("llama3", "qwen3", llama3), ("gpt2", "qwen3", gpt2), ("added-qwen3", "qwen3", added),
                               ("added-gemma3", "gemma3", added), ("whole-gemma3", "gemma3", whole)):
        j = copy.deepcopy(json.loads((MODELS / base / "tokenizer.json").read_text()))
        change(j)
        (HERE / name).mkdir(exist_ok=True)
        path = HERE / name / "tokenizer.json"
        path.write_text(json.dumps(j, ensure_ascii=False, separators=(",", ":")))
        tok, rng, lines = Tokenizer.from_file(str(path)), random.Random(name), []
        for _ in range(150):
            text = "".join(rng.choice(WORDS) + rng.choice(["", "", " "]) for _ in range(rng.randint(1, 7)))
            special, add_special = rng.random() < 0.6, rng.random() < 0.3
            tok.encode_special_tokens = not special
            ids = tok.encode(text, add_special_tokens=add_special).ids
            lines.append(json.dumps({"text": text, "special": special, "add_special": add_special, "ids": ids,
                                     "decoded": tok.decode(ids, skip_special_tokens=False)}))
        (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


main()
