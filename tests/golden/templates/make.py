#!/usr/bin/env python3
"""Write cases.jsonl: small templates and what transformers (5.17.0, jinja2 3.1.6, Python 3.11) makes of them.

Needs transformers; the tests need only the file. A case that Python refuses has no text: any refusal is right.
"""
import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).resolve().parent
MESSAGES = [{"role": "system", "content": " be  kind\n"}, {"role": "user", "content": "Hi \u00e9\u4f60 it's \"x\"", "n": 3},
            {"role": "assistant", "content": [{"type": "text", "text": "part"}], "tool_calls": [
                {"function": {"name": "f", "arguments": {"b": [1, 2.5, None, True], "a": "\u00fc"}}}]},
            {"role": "tool", "content": None, "x": {"k": 1, "j": {}, "l": []}}]
TEMPLATES = json.loads((HERE / "templates.json").read_text("utf-8"))


def main():
    lines = []
    for case in TEMPLATES:
        template, kwargs = (case, {}) if isinstance(case, str) else case
        line = {"template": template, "messages": MESSAGES, "tools": None, "kwargs": {"one": 1, **kwargs}}
        try:
            variables = {"bos_token": "<s>", **line["kwargs"]}
            line["text"] = render_jinja_template([MESSAGES], chat_template=template, **variables)[0][0]
        except Exception as e:
            line["error"] = str(e)
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    (HERE / "cases.jsonl").write_text("".join(lines), "utf-8")


main()
