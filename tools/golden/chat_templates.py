"""Makes tests/data/jinja.json, chat-hostile.json and chat-better.json: what Jinja2, set up as transformers sets it up, renders.

    python3 tools/golden/chat_templates.py TEMPLATES tests/data

TEMPLATES is the folder llama.cpp/models/templates. jinja.json holds small templates, one feature each, from
tests/data/jinja-cases.txt. chat-hostile.json holds, for every real template and every case of chat-templates.json with
control tokens put into each text of the conversation, the length and FNV-1a hash of the rendering. chat-better.json
holds what Jinja2 renders where transformers' settings alone forbid it: generators that serialize.
"""

import datetime
import json
import os
import re
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """`{% generation %}` renders as its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment(now, default=None):
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=default
        )

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: now.strftime(format)
    return env


def render(env, source, names):
    try:
        return {"text": env.from_string(source).render(**names)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def control_tokens(source):
    """Texts in a template that look like control tokens, and the usual ones."""
    found = re.findall(r"<[|｜][^\s<>]{1,40}[|｜]>|\[/?[A-Z_]{3,30}\]|</?[a-z_]{2,30}>", source)
    return sorted(set(found + ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "</think>"]))


def poison(value, tokens, key=None):
    """Every text of a conversation with control tokens between marks behind it."""
    if isinstance(value, dict):
        return {k: poison(v, tokens, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v, tokens, key) for v in value]
    if isinstance(value, str) and key in ("content", "text", "reasoning_content", "description", "city"):
        return value + "".join(f"\x02{token}\x03" for token in tokens)
    return value


def main(templates, data):
    fixture = json.load(open(os.path.join(data, "chat-templates.json")))
    env = environment(datetime.datetime.fromisoformat(fixture["now"]))
    lenient = environment(datetime.datetime.fromisoformat(fixture["now"]), list)
    hostile, better = {}, {}
    for name in fixture["templates"]:
        source = open(os.path.join(templates, name)).read()
        tokens = control_tokens(source)
        rows = {}
        for case, names in fixture["cases"].items():
            special = {"bos_token": "<s>", "eos_token": "</s>"}
            if "error" in fixture["templates"][name][case]:
                result = render(lenient, source, names | special)
                if "text" in result:
                    better.setdefault(name, {})[case] = result["text"]
            names = poison(names, tokens) | special
            result = render(env, source, names)
            if "text" in result:
                text = result["text"].encode()
                result = [len(text), f"{fnv1a64(text):016x}"]
            rows[case] = result
        hostile[name] = {"tokens": tokens, "cases": rows}
    with open(os.path.join(data, "chat-hostile.json"), "w") as f:
        json.dump(hostile, f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(data, "chat-better.json"), "w") as f:
        json.dump(better, f, ensure_ascii=False, indent=1)
    cases = open(os.path.join(data, "jinja-cases.txt")).read().split("\n====\n")
    names = json.loads(cases[0])
    rows = [{"source": source} | render(env, source, names) for source in cases[1:]]
    with open(os.path.join(data, "jinja.json"), "w") as f:
        json.dump({"names": names, "rows": rows}, f, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
