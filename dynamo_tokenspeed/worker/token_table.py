# SPDX-License-Identifier: MIT
"""The token ids that a model's tokenizer has a text for.

A checkpoint's vocabulary may be larger: padded, or with holes. The frontend cannot turn such
an id into text (with a tiktoken table it fails), so an answer never holds one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dynamo_tokenspeed.worker.errors import UsageError


@dataclass(frozen=True)
class TokenTable:
    """Ids from 0 to `size` - 1, less the `holes` among them."""

    size: int
    holes: frozenset[int] = frozenset()

    @classmethod
    def of(cls, token_ids: Iterable[int]) -> TokenTable:
        known = set(token_ids)
        size = max(known, default=-1) + 1
        return cls(size, frozenset(range(size)) - known)

    def within(self, vocab_size: int) -> TokenTable:
        """What of it a model with so many ids can sample."""
        if self.size <= vocab_size:
            return self
        return TokenTable(vocab_size, frozenset(id for id in self.holes if id < vocab_size))

    def __contains__(self, token_id: int) -> bool:
        return 0 <= token_id < self.size and token_id not in self.holes

    def __len__(self) -> int:
        return self.size - len(self.holes)


EMPTY = TokenTable(0)


def read_token_table(directory: Path) -> TokenTable:
    """Read as Dynamo's frontend will read it. Raises `UsageError` with one sentence."""
    path = directory / "tokenizer.json"
    if path.exists():
        return _of_tokenizer_json(path)
    tiktoken = _tiktoken_file(directory)
    if tiktoken is not None:
        return _of_tiktoken(tiktoken, directory / "tokenizer_config.json")
    raise UsageError(
        f"--model {directory}: there is no tokenizer in it, and the frontend needs one; "
        "put tokenizer.json (or tiktoken.model) beside config.json"
    )


def _of_tokenizer_json(path: Path) -> TokenTable:
    from tokenizers import Tokenizer  # the library the frontend reads it with

    try:
        vocabulary = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(
            f"{path}: the frontend cannot load this tokenizer: {error}; fetch the file again"
        ) from None
    return TokenTable.of(vocabulary.values())


def _tiktoken_file(directory: Path) -> Path | None:
    named = directory / "tiktoken.model"
    return named if named.exists() else next(iter(sorted(directory.glob("*.tiktoken"))), None)


def _of_tiktoken(path: Path, config_path: Path) -> TokenTable:
    """One `base64 rank` a line; special tokens stand in tokenizer_config.json."""
    try:
        ranks = [int(line.split()[1]) for line in path.read_bytes().splitlines() if line.strip()]
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(
            f"{path}: the frontend cannot load this tokenizer: {error}; fetch the file again"
        ) from None
    special: Iterable[str] = ()
    if config_path.exists():
        try:
            special = json.loads(config_path.read_text("utf-8"))["added_tokens_decoder"]
        except (OSError, ValueError, KeyError, TypeError):
            special = ()  # what else is wrong with it is said by `frontend_files`
    return TokenTable.of([*ranks, *(int(token_id) for token_id in special)])
