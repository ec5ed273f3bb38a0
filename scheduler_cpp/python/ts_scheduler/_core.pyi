# SPDX-License-Identifier: MIT
"""Types of the C++ module; docs/architecture.md gives each field's meaning and dtype."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]
UInt64 = npt.NDArray[np.uint64]
Tokens = Int32 | Buffer  # one-dimensional, C-contiguous, int32

class CacheGroup:
    """Pages of one geometry, beside those of full attention; immutable."""

    def __init__(self, kind: str, num_pages: int, window: int = 0) -> None:
        """`kind`: "sliding_window" (of `window` tokens) or "recurrent" (`window` 0)."""
    @property
    def kind(self) -> str: ...
    @property
    def num_pages(self) -> int: ...
    @property
    def window(self) -> int: ...

class SchedulerConfig:
    """Sizes and limits; immutable. ValueError with a sentence if they contradict each other."""

    def __init__(
        self,
        *,
        page_size: int = 16,
        num_pages: int = 1024,
        max_num_seqs: int = 64,
        max_model_len: int = 4096,
        max_num_batched_tokens: int = 2048,
        chunked_prefill_size: int = 512,
        vocab_size: int = 32000,
        absorb_from: int = 2147483647,
        enable_prefix_caching: bool = True,
        enable_kv_events: bool = True,
        params_size: int = 0,
        dp_rank: int = 0,
        max_overtakes: int = 64,
        overlap_depth: int = 0,
        num_speculative_tokens: int = 0,
        min_tps_per_user: float = 0.0,
        peer_timeout: float = 0.0,
        num_host_pages: int = 0,
        cache_groups: Iterable[CacheGroup] = (),
    ) -> None: ...
    @property
    def page_size(self) -> int: ...
    @property
    def num_pages(self) -> int: ...
    @property
    def max_num_seqs(self) -> int: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def max_num_batched_tokens(self) -> int: ...
    @property
    def chunked_prefill_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def absorb_from(self) -> int: ...
    @property
    def enable_prefix_caching(self) -> bool: ...
    @property
    def enable_kv_events(self) -> bool: ...
    @property
    def params_size(self) -> int: ...
    @property
    def dp_rank(self) -> int: ...
    @property
    def max_overtakes(self) -> int: ...
    @property
    def overlap_depth(self) -> int: ...
    @property
    def num_speculative_tokens(self) -> int: ...
    @property
    def min_tps_per_user(self) -> float: ...
    @property
    def peer_timeout(self) -> float: ...
    @property
    def num_host_pages(self) -> int: ...
    @property
    def cache_groups(self) -> tuple[CacheGroup, ...]: ...
    @property
    def pages_per_sequence(self) -> int:
        """Columns of the block table."""

class Plan:
    """What one step does; valid until that step is committed."""

    @property
    def step(self) -> int: ...
    @property
    def num_rows(self) -> int: ...
    @property
    def num_absorbed_rows(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...
    def pack(self, arena: Int32) -> int:
        """Write what the device reads into one piece of memory; returns how many words."""
    @property
    def row_slot(self) -> Int32: ...
    @property
    def row_start(self) -> Int32: ...
    @property
    def row_tokens(self) -> Int32: ...
    @property
    def row_samples(self) -> UInt8: ...
    @property
    def admitted_slot(self) -> Int32: ...
    @property
    def admitted_request(self) -> UInt64: ...
    @property
    def admitted_offset(self) -> Int32: ...
    @property
    def admitted_prompt_tokens(self) -> Int32: ...
    @property
    def admitted_tokens(self) -> Int32: ...
    @property
    def admitted_params(self) -> UInt8: ...
    @property
    def page_patch(self) -> Int32: ...
    def group_page_patch(self, group: int) -> Int32:
        """`page_patch` of a cache group: 0 is full attention, then the config's in order."""
    @property
    def transfer_id(self) -> UInt64: ...
    @property
    def transfer_request(self) -> UInt64: ...
    @property
    def transfer_kind(self) -> UInt8: ...
    @property
    def transfer_offset(self) -> Int32: ...
    @property
    def transfer_device_page(self) -> Int32: ...
    @property
    def transfer_host_page(self) -> Int32: ...

class Output:
    """The tokens a step yielded; valid until the next `commit()`."""

    @property
    def request(self) -> UInt64: ...
    @property
    def token(self) -> Int32: ...
    @property
    def row(self) -> Int32: ...
    @property
    def finish(self) -> UInt8: ...
    @property
    def cached_tokens(self) -> Int32: ...

class Stats:
    """Scheduler state between two calls."""

    @property
    def waiting(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def loading(self) -> int: ...
    @property
    def pages_used(self) -> int: ...
    @property
    def pages_cached(self) -> int: ...
    @property
    def pages_free(self) -> int: ...
    @property
    def host_pages_cached(self) -> int: ...
    @property
    def prefix_query_tokens(self) -> int: ...
    @property
    def prefix_hit_tokens(self) -> int: ...
    @property
    def retractions(self) -> int: ...
    @property
    def steps(self) -> int: ...

class FloorReport:
    """The TPS floor, since start."""

    @property
    def users(self) -> int:
        """Finished requests whose rate was measured."""
    @property
    def attained_p1(self) -> float:
        """Tokens/s: all but the slowest 1% of users had at least this."""
    @property
    def attained_p50(self) -> float: ...
    @property
    def held_prefill_tokens(self) -> int:
        """Prompt tokens that an earlier step would have computed without a floor."""
    @property
    def held_admissions(self) -> int:
        """Steps that admitted nobody for the floor's sake."""
    @property
    def predicted_step_seconds(self) -> float:
        """Of the last plan; 0 without a floor, or while nothing is known."""

class Scheduler:
    """Plans steps. A call that raises leaves the scheduler as it was."""

    def __init__(self, config: SchedulerConfig) -> None: ...
    @property
    def config(self) -> SchedulerConfig: ...
    def submit(
        self,
        request_id: int,
        prompt: Tokens,
        *,
        max_tokens: int,
        min_tokens: int = 0,
        eos_token_ids: Iterable[int] = (),
        stop_token_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        cache_salt: Buffer = b"",
        priority: int = 0,
        params: Buffer = b"",
        role: str = "aggregated",
    ) -> None:
        """Queue a request; ValueError with one sentence if it can never run.

        `role`: "prefill" computes the prompt and the first token, then has the pages sent to a
        peer; "decode" has the pages of all but the last prompt token sent here by one.
        """

    def abort(self, request_id: int) -> bool:
        """End a request now; True if this call ended it and nothing more will be reported."""

    def plan(self) -> Plan | None:
        """Plan and launch the next step; None if there is nothing to run now.

        RuntimeError while more than `overlap_depth` steps are in flight.
        """

    def commit(
        self,
        step: int,
        token_ids: Tokens,
        counts: Tokens | None = None,
        seconds: float | None = None,
    ) -> Output:
        """Hand in the oldest step's tokens (int32, in row order).

        `counts` of each sampling row, 1 to `row_samples` (None: one each); `seconds`: how long
        the step took (None: unknown).
        """

    def complete_transfer(self, transfer_id: int, ok: bool = True) -> None:
        """A plan's transfer has ended, well or not; in any order. ValueError if it is unknown."""

    def overdue_transfers(self, now: float) -> list[int]:
        """Transfers with a peer that have been under way for `peer_timeout` seconds or longer.

        The execution plane must stop them, so that nothing of them reads or writes a page any more,
        and then call `complete_transfer(id, ok=False)`, which releases their pages.
        """
    def kv_events(self, timestamp: float) -> bytes | None:
        """The msgpack payload [timestamp, [events], dp_rank] since the last call, or None."""

    def announce_cache(self) -> None:
        """Begin the events anew: the next payload clears, then stores all that is cached, parents
        first. O(pages)."""

    def clear_prefix_cache(self) -> bool:
        """Empty the prefix cache; False, and nothing changes, while a sequence holds pages."""

    @property
    def arena_words(self) -> int:
        """What `Plan.pack` needs at most, in int32 words."""

    def stats(self) -> Stats: ...
    def floor(self) -> FloorReport: ...
    def check_invariants(self) -> None:
        """RuntimeError naming the first violated invariant; O(pages), for tests."""
