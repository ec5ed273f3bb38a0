# SPDX-License-Identifier: MIT
"""A real byte-level BPE tokenizer with a chat template, learned in about a second.

The text it learns from is part of Python's standard library, so it is there wherever we are.
"""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|eos|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
SPECIAL_TOKENS = (EOS, *ROLES)  # ids 0 … 4
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)  # every byte, so that any text encodes
LEARN_FROM = ("argparse.py", "ast.py", "asyncio/tasks.py", "inspect.py", "json/decoder.py")
# Dynamo's frontend refuses an entry that leaves one of these out.
ADDED_TOKEN = {
    "lstrip": False,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
    "special": True,
}

CHAT_TEMPLATE = (
    "{%- if tools %}<|system|>{{ tools | tojson }}<|eos|>{% endif -%}"
    "{%- for message in messages -%}"
    "<|{{ message.role }}|>{{ message.content }}"
    "{%- if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif -%}"
    "<|eos|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif -%}"
)


def learn_tokenizer(vocab_size: int) -> Tokenizer:
    """At most `vocab_size` ids: the special tokens first, then bytes, then learned merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    library = Path(sysconfig.get_paths()["stdlib"])
    tokenizer.train(
        [str(library / name) for name in LEARN_FROM],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, directory: Path, max_length: int) -> None:
    """The files that `transformers` and Dynamo's frontend read; the template is in two of them."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": EOS,
        "additional_special_tokens": list(ROLES),
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(token)): {"content": token} | ADDED_TOKEN
            for token in SPECIAL_TOKENS
        },
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
