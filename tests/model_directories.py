# SPDX-License-Identifier: MIT
"""Model directories with one thing missing or wrong, and what becomes of each.

Either the door refuses it with a sentence, or Dynamo's frontend serves it: nothing in between.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "recipes/tiny-kimi"
TEMPLATE = (SOURCE / "chat_template.jinja").read_text()
NO_CHAT = ("--endpoint-types", "completions")
GONE = object()
Edit = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    name: str
    edit: Edit
    refusal: str = ""  # a word of the sentence; "" where it is served
    flags: tuple[str, ...] = ()

    @property
    def chat(self) -> bool:
        return self.flags != NO_CHAT

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        for name in ("config", "generation_config", "tokenizer", "tokenizer_config"):
            shutil.copy(SOURCE / f"{name}.json", folder)
        shutil.copy(SOURCE / "chat_template.jinja", folder)
        (folder / "model.safetensors").symlink_to(SOURCE / "model.safetensors")
        self.edit(folder)
        return folder


def write(name: str, content: str | bytes) -> Edit:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Edit:
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*edits: Edit) -> Edit:
    return lambda folder: [edit(folder) for edit in edits]


def keys(name: str, **changes: Any) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / f"{name}.json"
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v is not GONE}))

    return edit


NO_TEMPLATE = both(remove("chat_template.jinja"), keys("tokenizer_config", chat_template=GONE))
NO_EOS_ID = both(remove("generation_config.json"), keys("config", eos_token_id=GONE))
NO_EOS = both(NO_EOS_ID, keys("tokenizer_config", eos_token=GONE))
TOKEN = {"content": "[EOS]", "lstrip": False, "normalized": True, "rstrip": False}


def template_key(value: Any) -> Edit:
    return both(remove("chat_template.jinja"), keys("tokenizer_config", chat_template=value))


CASES = [
    Case("as published", lambda folder: None),
    # the tokenizer
    Case("no tokenizer", remove("tokenizer.json"), "tokenizer.json"),
    Case("no tokenizer, no chat", remove("tokenizer.json"), "tokenizer.json", NO_CHAT),
    Case("a tokenizer cut short", write("tokenizer.json", "{"), "tokenizer.json"),
    Case("an empty tokenizer", write("tokenizer.json", "{}"), "tokenizer.json"),
    Case(
        "a tokenizer of an unknown kind",
        write("tokenizer.json", '{"version": "1.0", "model": {"type": "Nope"}}'),
        "tokenizer.json",
    ),
    Case(
        "a sentencepiece model only",
        both(remove("tokenizer.json"), write("tokenizer.model", "x")),
        "tokenizer.json",
    ),
    Case(
        "a tiktoken table cut short",
        both(remove("tokenizer.json"), write("tiktoken.model", "IQ==")),
        "tiktoken.model",
    ),
    # tokenizer_config.json
    Case("no tokenizer_config", remove("tokenizer_config.json"), "--endpoint-types completions"),
    Case("no tokenizer_config, no chat", remove("tokenizer_config.json"), flags=NO_CHAT),
    Case("tokenizer_config cut short", write("tokenizer_config.json", "{"), "tokenizer_config"),
    Case("tokenizer_config cut short, no chat", write("tokenizer_config.json", "{"), flags=NO_CHAT),
    Case("tokenizer_config a list", write("tokenizer_config.json", "[]"), "tokenizer_config"),
    Case("tokenizer_config empty", write("tokenizer_config.json", "{}")),
    Case("tokenizer_config with NaN", write("tokenizer_config.json", '{"a": NaN}'), "malformed"),
    Case("no BOS token", keys("tokenizer_config", bos_token=None)),
    Case("a BOS token as number", keys("tokenizer_config", bos_token=5), "bos_token"),
    Case("an EOS token as object", keys("tokenizer_config", eos_token=TOKEN), "eos_token"),
    Case(
        "an EOS token as whole object",
        keys("tokenizer_config", eos_token=TOKEN | {"single_word": False}),
    ),
    Case(
        "added tokens as number", keys("tokenizer_config", added_tokens_decoder=5), "added_tokens"
    ),
    Case(
        "an added token in part",
        keys("tokenizer_config", added_tokens_decoder={"4080": {"content": "[BOS]"}}),
        "added_tokens",
    ),
    *(
        Case(f"{name} of the wrong type", keys("tokenizer_config", **{name: value}), name)
        for name, value in {
            "model_max_length": "long",
            "clean_up_tokenization_spaces": "x",
            "tokenizer_class": 5,
            "additional_special_tokens": [5],
            "unk_token": 5,
            "legacy": 5,
            "add_bos_token": "x",
            "sp_model_kwargs": 5,
            "spaces_between_special_tokens": 3,
        }.items()
    ),
    # the chat template
    Case("a template in tokenizer_config", remove("chat_template.jinja")),
    Case("a template in a file", keys("tokenizer_config", chat_template=GONE)),
    Case(
        "a template in chat_template.json",
        both(NO_TEMPLATE, write("chat_template.json", json.dumps({"chat_template": TEMPLATE}))),
    ),
    Case("no template", NO_TEMPLATE, "--custom-jinja-template"),
    Case("no template, no chat", NO_TEMPLATE, flags=NO_CHAT),
    Case(
        "a template by flag",
        NO_TEMPLATE,
        flags=("--custom-jinja-template", str(SOURCE / "chat_template.jinja")),
    ),
    Case("an empty template", write("chat_template.jinja", ""), "empty"),
    Case("a template with an open block", write("chat_template.jinja", "{% if %}"), "jinja"),
    Case("such a template, no chat", write("chat_template.jinja", "{% if %}"), flags=NO_CHAT),
    Case("a template that is no text", write("chat_template.jinja", b"\xff\xfe"), "cannot be read"),
    Case(
        "a template with an unknown filter",
        write("chat_template.jinja", TEMPLATE + "{{ 'a' | nope }}"),
        "nope",
    ),
    Case(
        "a template with an unknown tag",
        write("chat_template.jinja", TEMPLATE + "{% do messages %}"),
        "do",
    ),
    Case(
        "a template with tags of transformers",
        write(
            "chat_template.jinja",
            TEMPLATE + "{% generation %}{% for m in messages %}{% break %}{% endfor %}"
            "{% endgeneration %}",
        ),
    ),
    Case("a template as number", template_key(5), "chat_template"),
    Case("named templates", template_key([{"name": "default", "template": TEMPLATE}]), "named"),
    Case("templates by name", template_key([{"default": TEMPLATE, "tool_use": TEMPLATE}])),
    Case("templates without a default", template_key([{"tool_use": TEMPLATE}]), "named"),
    # config.json
    Case("no model_type", keys("config", model_type=GONE), "model_type"),
    Case("no model_type, no chat", keys("config", model_type=GONE), "model_type", NO_CHAT),
    Case("a model_type as number", keys("config", model_type=5), "model_type"),
    *(
        Case(f"{name} as text", keys("config", **{name: "7"}), name)
        for name in (
            *("vocab_size", "num_hidden_layers", "num_attention_heads"),
            *("bos_token_id", "max_position_embeddings"),
        )
    ),
    Case("vocab_size as fraction", keys("config", vocab_size=4096.0), "vocab_size"),
    Case("a BOS id below 0", keys("config", bos_token_id=-1), "bos_token_id"),
    Case("BOS ids", keys("config", bos_token_id=[1]), "bos_token_id"),
    Case("no context length", keys("config", max_position_embeddings=None), "max_position"),
    Case("no BOS id", keys("config", bos_token_id=None)),
    Case("an inner config as number", keys("config", text_config=5), "text_config"),
    Case(
        "an inner vocabulary as text",
        keys("config", text_config={"vocab_size": "7"}),
        "vocab_size",
    ),
    # what ends an answer
    Case("an EOS id in config only", remove("generation_config.json")),
    Case("an EOS id in generation_config only", keys("config", eos_token_id=GONE)),
    Case("an EOS text only", NO_EOS_ID),
    Case(
        "an EOS text that the tokenizer alone knows",
        both(NO_EOS_ID, keys("tokenizer_config", added_tokens_decoder=GONE)),
    ),
    Case(
        "an EOS text that is no token",
        both(NO_EOS_ID, keys("tokenizer_config", eos_token="e")),
        "ends an answer",
    ),
    Case(
        "an EOS text in special_tokens_map",
        both(NO_EOS, write("special_tokens_map.json", '{"eos_token": {"content": "[EOS]"}}')),
    ),
    Case("no EOS", NO_EOS, "ends an answer"),
    Case("no EOS, no chat", NO_EOS, "ends an answer", NO_CHAT),
    Case("an EOS id as text", both(NO_EOS, keys("config", eos_token_id="x")), "ends an answer"),
    Case("an EOS id below 0", both(NO_EOS, keys("config", eos_token_id=-1)), "ends an answer"),
    Case("an EOS id past the table", keys("config", eos_token_id=[4081, 999_999])),
    # generation_config.json
    Case("no generation_config", remove("generation_config.json")),
    Case("generation_config cut short", write("generation_config.json", "{"), "generation_config"),
    Case("generation_config a list", write("generation_config.json", "[]"), "generation_config"),
    Case("a bad default", keys("generation_config", top_p=3), "--generation-config vllm"),
    Case("EOS of no id", keys("generation_config", eos_token_id="x"), "eos_token_id"),
]

SERVED = [case for case in CASES if not case.refusal]
REFUSED = [case for case in CASES if case.refusal]
