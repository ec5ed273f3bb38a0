# SPDX-License-Identifier: MIT
"""The scheduler's policy, slow and obvious: what the C++ must decide, call for call.

Nothing here is indexed, cached or incremental: a page's content is named by its salt
and every token up to its end, what steps in flight do is looked up in their rows, and
each list is searched from its beginning. The one thing it shares with the C++ is the
policy; page and slot ids follow because free ones are a stack (last in, first out).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from prefix_cache_model import Content, PrefixCacheModel

NONE, STOP, LENGTH = 0, 1, 2  # Output.finish

WINDOW = 32  # requests passed over in one step
LOOK_AGAIN = 16  # steps until a request that lacked pages is matched again


@dataclass(frozen=True)
class Config:
    """The fields of `ts_scheduler.SchedulerConfig` that the policy depends on."""

    page_size: int
    num_pages: int
    max_num_seqs: int
    max_model_len: int
    max_num_batched_tokens: int
    chunked_prefill_size: int
    max_overtakes: int
    enable_prefix_caching: bool = True
    overlap_depth: int = 0
    num_speculative_tokens: int = 0


@dataclass(eq=False)
class Request:
    request_id: int
    tokens: list[int]  # prompt, then output
    prompt_length: int
    min_length: int  # of prompt and output together, as is max_length
    max_length: int
    stops: set[int]
    salt: bytes
    priority: int
    arrival: int
    params: bytes
    cached_tokens: int | None = None  # of the prompt, at first admission
    overtaken: int = 0  # by later requests, while this one did not fit
    lacking: int = 0  # pages that had to be available when it did not fit
    looked_up: int = 0  # after which step that was

    @property
    def service_order(self) -> tuple[int, int]:
        return (-self.priority, self.arrival)

    def finish_after(self, token: int) -> int:
        """The finish reason when `token` is the last one."""
        if token in self.stops and len(self.tokens) >= self.min_length:
            return STOP
        return LENGTH if len(self.tokens) >= self.max_length else NONE


@dataclass(eq=False)
class Sequence:
    """A request with a slot."""

    request: Request
    slot: int
    pages: list[int]  # by column
    shared: int  # so many of them, the first, are references into the prefix cache
    promised: int  # pages that finish the prefill and are not taken yet
    computed: int  # tokens whose KV is committed
    prefill_length: int  # tokens to compute before the first new one can be sampled
    sent: int = 0  # columns before this one are in the device's block table
    ended: bool = False  # finished or aborted; here only while a step in flight names it


@dataclass(frozen=True)
class Row:
    sequence: Sequence
    start: int  # if every draft in flight is accepted
    earliest: int  # if every one is rejected
    tokens: int
    samples: int  # tokens that it may yield
    decodes: bool


@dataclass
class Step:
    number: int
    rows: list[Row] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return sum(row.tokens for row in self.rows)


class SchedulerModel:
    """Calls as `ts_scheduler.Scheduler` takes them; plans and outputs are dicts of lists."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cache = PrefixCacheModel(config.page_size, announces=config.enable_prefix_caching)
        self.free_pages = list(reversed(range(config.num_pages)))
        self.free_slots = list(reversed(range(config.max_num_seqs)))
        self.waiting: list[Request] = []  # in service order, as is running
        self.running: list[Sequence] = []
        self.draining: list[Sequence] = []
        self.in_flight: list[Step] = []
        self.replaced: list[tuple[int, int]] = []  # page, the last step that may read it
        self.arrivals = 0
        self.launched_steps = 0
        self.committed_steps = 0
        self.retractions = 0
        self.prefix_query_tokens = 0
        self.prefix_hit_tokens = 0

    # Requests

    def submit(
        self,
        request_id: int,
        prompt: Iterable[int],
        *,
        max_tokens: int,
        min_tokens: int = 0,
        eos_token_ids: Iterable[int] = (),
        stop_token_ids: Iterable[int] = (),
        ignore_eos: bool = False,
        cache_salt: bytes = b"",
        priority: int = 0,
        params: bytes = b"",
    ) -> None:
        tokens = [int(token) for token in prompt]
        request = Request(
            request_id=request_id,
            tokens=tokens,
            prompt_length=len(tokens),
            min_length=len(tokens) + min_tokens,
            max_length=min(len(tokens) + max_tokens, self.config.max_model_len),
            stops=set(stop_token_ids) | (set() if ignore_eos else set(eos_token_ids)),
            salt=cache_salt,
            priority=priority,
            arrival=self.arrivals,
            params=params,
        )
        self.arrivals += 1
        self._queue(request)

    def abort(self, request_id: int) -> bool:
        for request in self.waiting:
            if request.request_id == request_id:
                self.waiting.remove(request)
                return True
        for sequence in self.running:
            if sequence.request.request_id == request_id:
                self._end(sequence)
                return True
        return False

    # A step is planned: decodes, then the prefills under way, then admissions.

    def plan(self) -> dict | None:
        if len(self.in_flight) > self.config.overlap_depth:
            raise RuntimeError("too many steps are in flight")
        self.step = Step(self.launched_steps + 1)
        self.without_row: list[Sequence] = []
        somebody_gave_way = self._plan_decodes()
        self._plan_prefills()
        # Whoever just gave way shall not fight for the pages in the same step.
        if not somebody_gave_way:
            self._admit()
        if not self.step.rows:
            return None
        self.launched_steps += 1
        self.in_flight.append(self.step)
        return self._emit(self.step)

    def _plan_decodes(self) -> bool:
        """Every sequence whose next position opens a page takes one, oldest first, then drafts.

        While none is available the youngest gives way: it is retracted, or, as long as a step
        in flight names it, gets no row in this step; the sequence in need then gets none either.
        Nobody else gives way while pages of an ended sequence are on their way back.
        """
        somebody_gave_way = False
        for sequence in list(self.running):
            if not self._may_decode(sequence):
                continue
            start = self._launched(sequence)
            while (
                start == self._room(sequence)
                and self._wants_row(sequence)
                and self._available() == 0
            ):
                somebody_gave_way = True
                youngest = [s for s in self.running if self._wants_row(s)][-1]
                if self.draining:
                    self.without_row.append(sequence)
                elif self._in_flight(youngest):
                    self.without_row += [youngest, sequence]
                else:
                    self._retract(youngest)
            if not self._wants_row(sequence):
                continue
            self._take_pages(sequence, start + 1)
            drafts = self._drafts(sequence, start)
            self._take_pages(sequence, start + 1 + drafts)
            self._append_row(sequence, start, 1 + drafts, 1 + drafts, decodes=True)
        return somebody_gave_way

    def _retract(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self._queue(sequence.request)
        self.retractions += 1

    def _drafts(self, sequence: Sequence, start: int) -> int:
        """As many as may still be kept and as pages allow if one is left to each younger one."""
        most = min(self.config.num_speculative_tokens, sequence.request.max_length - start - 2)
        younger = self.running[self.running.index(sequence) + 1 :]
        spare = max(0, self._available() - sum(map(self._wants_row, younger)))
        reachable = self._room(sequence) + spare * self.config.page_size
        return min(most, reachable - start - 1)

    def _plan_prefills(self) -> None:
        for sequence in self.running:
            if self._wants_row(sequence) and self._prefills(sequence):
                self._plan_chunk(sequence)

    def _plan_chunk(self, sequence: Sequence) -> None:
        start = self._launched(sequence)
        rest = sequence.prefill_length - start
        tokens = min(rest, self.config.chunked_prefill_size, self._budget_left())
        if tokens == 0:
            return
        columns = len(sequence.pages)
        self._take_pages(sequence, start + tokens)
        sequence.promised -= len(sequence.pages) - columns
        samples = 1 if tokens == rest else 0
        self._append_row(sequence, start, tokens, samples, decodes=False)

    def _append_row(
        self, sequence: Sequence, start: int, tokens: int, samples: int, decodes: bool
    ) -> None:
        in_flight = self._rows_in_flight(sequence)
        earliest = start - sum(row.samples - 1 for row in in_flight if row.decodes)
        self.step.rows.append(Row(sequence, start, earliest, tokens, samples, decodes))

    def _admit(self) -> None:
        """In service order, but a request that does not fit does not stop one that does,
        until it has been overtaken often enough."""
        passed_over = 0
        blocked: list[Request] = []
        for request in list(self.waiting):
            if passed_over == WINDOW or not self.free_slots or self._budget_left() == 0:
                return
            prefix = self._cached_prefix(request)
            verdict = self._consider(request, prefix)
            if verdict == "fits":
                self._seat(request, prefix)
                for overtaken in blocked:
                    overtaken.overtaken += 1
                if any(other.overtaken >= self.config.max_overtakes for other in blocked):
                    return
                continue
            passed_over += 1
            if verdict == "blocked":
                if request.overtaken >= self.config.max_overtakes:
                    return
                blocked.append(request)

    def _consider(self, request: Request, prefix: list[int]) -> Literal["fits", "blocked", "waits"]:
        # A page for each running sequence stays available, so that admission retracts nobody.
        admissible = self._available() - len(self.running)
        looked_up_lately = self.launched_steps - request.looked_up < LOOK_AGAIN
        if looked_up_lately and admissible < request.lacking:
            return "blocked"
        if self._next_page_is_being_computed(request, prefix):
            return "waits"
        unreferenced = [page for page in prefix if self.cache.references[page] == 0]
        request.looked_up = self.launched_steps
        request.lacking = self._pages_to_finish(request, prefix) + len(unreferenced)
        return "fits" if request.lacking <= admissible else "blocked"

    def _cached_prefix(self, request: Request) -> list[int]:
        if not self.config.enable_prefix_caching:
            return []
        return self.cache.match(request.salt, request.tokens, self._matchable(request))

    def _matchable(self, request: Request) -> int:
        # At least one token must be computed, for its logits.
        return (len(request.tokens) - 1) // self.config.page_size

    def _next_page_is_being_computed(self, request: Request, prefix: list[int]) -> bool:
        """What a step in flight or a prefill of this one computes is better waited for."""
        if not self.config.enable_prefix_caching or len(prefix) == self._matchable(request):
            return False
        in_flight = [sequence for sequence in self.running if self._in_flight(sequence)]
        planned = [row.sequence for row in self.step.rows if not row.decodes]
        next_page = self._content(request, len(prefix))
        return any(self._content(s.request, s.shared) == next_page for s in in_flight + planned)

    def _pages_to_finish(self, request: Request, prefix: list[int]) -> int:
        return self._pages_for(len(request.tokens)) - len(prefix)

    def _seat(self, request: Request, prefix: list[int]) -> None:
        cached = len(prefix) * self.config.page_size
        self.waiting.remove(request)
        for page in prefix:
            self.cache.acquire(page)
        if request.cached_tokens is None:
            request.cached_tokens = cached
            if self.config.enable_prefix_caching:
                self.prefix_query_tokens += request.prompt_length
                self.prefix_hit_tokens += cached
        request.overtaken = 0
        request.lacking = 0
        sequence = Sequence(
            request=request,
            slot=self.free_slots.pop(),
            pages=list(prefix),
            shared=len(prefix),
            promised=self._pages_to_finish(request, prefix),
            computed=cached,
            prefill_length=len(request.tokens),
        )
        self.running.append(sequence)
        self.running.sort(key=lambda s: s.request.service_order)
        self.step.admitted.append(sequence)
        self._plan_chunk(sequence)

    def _emit(self, step: Step) -> dict:
        # Rows that attention treats as decodes, by their length, come first.
        longest = 1 + self.config.num_speculative_tokens
        step.rows.sort(key=lambda row: row.tokens > longest)
        rows, admitted = step.rows, step.admitted
        offsets = [0]
        for sequence in admitted:
            offsets.append(offsets[-1] + len(sequence.request.tokens))
        return {
            "step": step.number,
            "num_rows": len(rows),
            "num_decode_rows": sum(row.tokens <= longest for row in rows),
            "num_tokens": step.num_tokens,
            "row_slot": [row.sequence.slot for row in rows],
            "row_start": [row.start for row in rows],
            "row_tokens": [row.tokens for row in rows],
            "row_samples": [row.samples for row in rows],
            "admitted_slot": [s.slot for s in admitted],
            "admitted_request": [s.request.request_id for s in admitted],
            "admitted_offset": offsets,
            "admitted_prompt_tokens": [s.request.prompt_length for s in admitted],
            "admitted_tokens": [token for s in admitted for token in s.request.tokens],
            "admitted_params": [list(s.request.params) for s in admitted],
            "page_patch": [patch for row in rows for patch in self._patches(row.sequence)],
        }

    def _patches(self, sequence: Sequence) -> list[list[int]]:
        columns = range(sequence.sent, len(sequence.pages))
        sequence.sent = len(sequence.pages)
        return [[sequence.slot, column, sequence.pages[column]] for column in columns]

    # A step is committed: rows advance, full pages enter the cache, requests end.

    def commit(
        self, step: int, token_ids: Iterable[int], counts: Iterable[int] | None = None
    ) -> dict:
        """`counts`: how many of `token_ids` each sampling row yielded; all one if not given."""
        retired = self.in_flight.pop(0)
        assert retired.number == step
        sampling_rows = [row for row in retired.rows if row.samples]
        tokens = iter(token_ids)
        counts = [1] * len(sampling_rows) if counts is None else counts
        yielded = {
            row: [int(next(tokens)) for _ in range(count)]
            for row, count in zip(sampling_rows, counts, strict=True)
        }
        output: dict = {"request": [], "token": [], "row": [], "finish": [], "cached_tokens": []}
        for row in retired.rows:
            if row.sequence.ended:
                if not self._in_flight(row.sequence):
                    self.draining.remove(row.sequence)
                    self._release(row.sequence)
                continue
            self._commit_row(row, yielded.get(row, []), sampling_rows, output)
        self.committed_steps += 1
        while self.replaced and self.replaced[0][1] <= step:
            self.free_pages.append(self.replaced.pop(0)[0])
        return output

    def _commit_row(
        self, row: Row, tokens: list[int], sampling_rows: list[Row], output: dict
    ) -> None:
        sequence, request = row.sequence, row.sequence.request
        finish = NONE
        kept = 0
        for token in tokens:
            request.tokens.append(token)
            kept += 1
            finish = request.finish_after(token)
            output["request"].append(request.request_id)
            output["token"].append(token)
            output["row"].append(sampling_rows.index(row))
            output["finish"].append(finish)
            output["cached_tokens"].append(request.cached_tokens)
            if finish:
                break
        sequence.computed += kept if row.decodes else row.tokens
        self._cache_full_pages(sequence)
        if finish:
            self._end(sequence)

    def _cache_full_pages(self, sequence: Sequence) -> None:
        """If the content was cached meanwhile, that page takes the column of this sequence's."""
        if not self.config.enable_prefix_caching:
            return
        while sequence.computed >= (sequence.shared + 1) * self.config.page_size:
            column = sequence.shared
            if self._may_be_written(sequence, column):
                return
            content = self._content(sequence.request, column)
            cached = self.cache.page_of.get(content)
            # A replaced page is not back before steps in flight have read it: one must be to spare.
            if self.in_flight and self._available() == 0 and cached in self.cache.unreferenced:
                return
            if cached is not None:
                self.replaced.append((sequence.pages[column], self.launched_steps))
                sequence.pages[column] = cached
                self.cache.acquire(cached)
                sequence.sent = min(sequence.sent, column)
            else:
                self.cache.insert(content, sequence.pages[column])
            sequence.shared += 1

    # The rest of the interface

    def kv_events(self) -> list[dict] | None:
        events, self.cache.events = self.cache.events, []
        return events or None

    def clear_prefix_cache(self) -> bool:
        if self.running or self.draining:
            return False
        self.free_pages += self.cache.clear()
        return True

    def stats(self) -> dict[str, int]:
        free, cached = len(self.free_pages), len(self.cache.unreferenced)
        return {
            "waiting": len(self.waiting),
            "running": len(self.running),
            "pages_used": self.config.num_pages - free - cached,
            "pages_cached": cached,
            "pages_free": free,
            "prefix_query_tokens": self.prefix_query_tokens,
            "prefix_hit_tokens": self.prefix_hit_tokens,
            "retractions": self.retractions,
            "steps": self.committed_steps,
        }

    # What steps in flight do to a sequence

    def _rows_in_flight(self, sequence: Sequence) -> list[Row]:
        return [row for step in self.in_flight for row in step.rows if row.sequence is sequence]

    def _in_flight(self, sequence: Sequence) -> bool:
        return bool(self._rows_in_flight(sequence))

    def _launched(self, sequence: Sequence) -> int:
        """Tokens whose KV is computed when the steps in flight are, drafts taken as accepted."""
        return sequence.computed + sum(row.tokens for row in self._rows_in_flight(sequence))

    def _may_be_written(self, sequence: Sequence, column: int) -> bool:
        """By a step in flight, for all that was known when it was planned."""
        rows = self._rows_in_flight(sequence)
        return any(column >= row.earliest // self.config.page_size for row in rows)

    def _prefills(self, sequence: Sequence) -> bool:
        return self._launched(sequence) < sequence.prefill_length

    def _may_decode(self, sequence: Sequence) -> bool:
        """It is decoding, and its last token is not in flight already."""
        launched = self._launched(sequence)
        return not self._prefills(sequence) and launched + 1 < sequence.request.max_length

    def _wants_row(self, sequence: Sequence) -> bool:
        return sequence in self.running and sequence not in self.without_row

    def _budget_left(self) -> int:
        return self.config.max_num_batched_tokens - self.step.num_tokens

    # Pages

    def _available(self) -> int:
        """Pages that can be promised or taken: free or cached only, and not promised."""
        promised = sum(sequence.promised for sequence in [*self.running, *self.draining])
        return len(self.free_pages) + len(self.cache.unreferenced) - promised

    def _take_page(self) -> int:
        return self.free_pages.pop() if self.free_pages else self.cache.evict()

    def _take_pages(self, sequence: Sequence, tokens: int) -> None:
        while len(sequence.pages) < self._pages_for(tokens):
            sequence.pages.append(self._take_page())

    def _release(self, sequence: Sequence) -> None:
        """Last page first, so that a page is evicted before the one it continues."""
        for page in reversed(sequence.pages[sequence.shared :]):
            self.free_pages.append(page)
        for page in reversed(sequence.pages[: sequence.shared]):
            self.cache.release(page)
        self.free_slots.append(sequence.slot)

    def _end(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        sequence.ended = True
        if self._in_flight(sequence):
            self.draining.append(sequence)
        else:
            self._release(sequence)

    def _queue(self, request: Request) -> None:
        self.waiting.append(request)
        self.waiting.sort(key=lambda other: other.service_order)

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self.config.page_size)

    def _room(self, sequence: Sequence) -> int:
        """Tokens that its pages hold."""
        return len(sequence.pages) * self.config.page_size

    def _content(self, request: Request, column: int) -> Content:
        return (request.salt, tuple(request.tokens[: (column + 1) * self.config.page_size]))
