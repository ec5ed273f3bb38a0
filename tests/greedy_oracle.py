# SPDX-License-Identifier: MIT
"""What `transformers` generates greedily, computed in a handful of forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from oracle import Oracle

Tokens = Sequence[Sequence[int]]


class GreedyOracle:
    """Greedy decoding that is told what the answer may be.

    A forward pass over prompt and draft shows, at every position, the token that
    `transformers` would choose there. Up to the first disagreement that is its own greedy
    continuation; from there on the draft is corrected and looked at again. The result does
    not depend on the draft; a draft that is right costs one forward pass for all prompts.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        self._model = Oracle(checkpoint).model

    @torch.inference_mode()
    def generate(self, prompts: Tokens, drafts: Tokens) -> list[list[int]]:
        """For each prompt as many tokens as its draft has; no token ends the text."""
        answers = [list(draft) for draft in drafts]
        while True:
            chosen = self._choices(prompts, answers)
            if chosen == answers:
                return answers
            for answer, choice in zip(answers, chosen, strict=True):
                for position, token in enumerate(choice):
                    if answer[position] != token:  # what follows it was asked about a wrong text
                        answer[position] = token
                        break

    def _choices(self, prompts: Tokens, answers: Tokens) -> list[list[int]]:
        """The most likely token at every position of the answers, given what precedes it."""
        texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        # Padded on the right, where a causal model does not look.
        tokens = torch.zeros((len(texts), max(map(len, texts))), dtype=torch.long)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.tensor(text)
        best = self._model(input_ids=tokens, use_cache=False).logits.argmax(-1)
        return [
            best[row, len(prompt) - 1 : len(texts[row]) - 1].tolist()
            for row, prompt in enumerate(prompts)
        ]
