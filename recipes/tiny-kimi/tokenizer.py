# SPDX-License-Identifier: MIT
"""The tokenizer: byte-level BPE learned on the corpus, with the special tokens of Kimi K2."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096

# Control tokens disappear when a reply is decoded with `skip_special_tokens`.
CONTROL_TOKENS = (
    "[BOS]",
    "[EOS]",
    "[PAD]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
)
# Tool-call markers must survive that decoding: the serving side parses them out of the text.
TOOL_TOKENS = (
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)
LEARNED_SIZE = VOCAB_SIZE - 16  # the last 16 ids are the markers above and three spares
RESERVED_TOKENS = tuple(
    f"<|reserved_token_{i}|>"
    for i in range(LEARNED_SIZE + len(CONTROL_TOKENS) + len(TOOL_TOKENS), VOCAB_SIZE)
)

# Lets one leading symbol join a word (`_name`, `.append`, `(self`), which shortens code by a tenth.
SPLIT = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def learn(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges from `texts`; the result has exactly VOCAB_SIZE ids, each decodable."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in CONTROL_TOKENS])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in TOOL_TOKENS])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in RESERVED_TOKENS])
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path, max_length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json; the chat template goes into the latter too.

    Dynamo's frontend reads the template from tokenizer_config.json, `transformers` prefers the
    separate chat_template.jinja, which is the source of both.
    """
    tokenizer.save(str(directory / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token not in TOOL_TOKENS,
        }
        for token in CONTROL_TOKENS + TOOL_TOKENS + RESERVED_TOKENS
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "pad_token": "[PAD]",
        "additional_special_tokens": list(CONTROL_TOKENS[3:]),
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        "chat_template": (directory / "chat_template.jinja").read_text(),
    }
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (directory / "tokenizer_config.json").write_text(text + "\n")
