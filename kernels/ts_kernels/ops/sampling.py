# SPDX-License-Identifier: MIT
"""Choosing the next tokens, and their log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ts_kernels.ops import checks
from ts_kernels.ops.dispatch import ops_for
from ts_kernels.sampling_rows import SamplingRows


def sample(logits: Tensor, rows: SamplingRows) -> Tensor:
    """The next token of every row. → [R] int64. The logits are not written.

    In this order, each only for the rows that ask for it:

    1. bias: `logits[row, token] += value` (OpenAI's logit_bias; -inf bans a token: min_tokens).
    2. repetition penalty r over prompt and generated tokens: l / r where l > 0, else l * r
       (Keskar et al., 2019); then, over generated tokens, l -= frequency * count and
       l -= presence * (count > 0) (OpenAI). The order is vLLM's.
    3. temperature: l / temperature; below `GREEDY_TEMPERATURE` the row takes the argmax (of equals
       the first) and is done.
    4. top-k: keeps the k most likely, with all that equal the k-th.
    5. top-p: of those, in descending order, keeps a token while the ones before it hold less than
       p of the remaining mass, with all that equal the last (Holtzman et al., 2020).
    6. min-p: keeps tokens with at least min_p times the probability of the most likely one.
    7. inverts the cumulative distribution of what is left, in the order of token ids, at a number
       that depends on (seed, position) alone (`ts_kernels.uniform`).

    A row's outcome depends on its own logits and parameters, never on the rows beside it. If its
    largest logit after step 2 is no finite number (every token is banned, or the model computed a
    NaN), there is nothing to choose, and its id is `UNSAMPLEABLE` = -1.

    logits: [R, V] fp32. rows: `SamplingRows.of(...)`.
    """
    checks.shape("logits", logits, None, None)
    checks.dtype("logits", logits, torch.float32)
    return ops_for(logits).sample(logits, rows)


def token_logprobs(logits: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the chosen tokens and of the k most likely.

    They are log_softmax of the model's own logits, before bias, penalties, temperature and
    truncation, as OpenAI-compatible engines report them by default; never below
    `LOWEST_LOGPROB` = -9999, so always finite.

    logits: [R, V] fp32. ids: [R] int64. 0 <= k <= V. → (logprob [R] fp32, top_ids [R, k] int64,
    top_logprobs [R, k] fp32, descending).
    """
    checks.shape("logits", logits, None, None)
    checks.dtype("logits", logits, torch.float32)
    checks.shape("ids", ids, logits.shape[0])
    checks.dtype("ids", ids, torch.int64)
    if not 0 <= k <= logits.shape[1]:
        raise ValueError(f"k is {k}, but must be between 0 and the vocabulary's {logits.shape[1]}")
    return ops_for(logits).token_logprobs(logits, ids, k)
