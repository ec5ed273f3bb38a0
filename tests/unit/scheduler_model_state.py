# SPDX-License-Identifier: MIT
"""What the scheduler's model remembers, and what can be read off it; see scheduler_model.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache_group_model import CacheGroup, CacheGroupPages, GroupPage, SequenceGroupPages
from host_tier_model import HostTierModel, WriteBack
from kv_events_model import Content, KvEventsModel
from prefix_cache_model import PrefixCacheModel

NONE, STOP, LENGTH, FAILED = 0, 1, 2, 3  # Output.finish
NO_TOKEN = -1  # of a row whose next token could not be sampled
STORE, LOAD, SEND, RECEIVE, DISPLACE = 0, 1, 2, 3, 4  # Plan.transfer_kind
NO_PAGE = -1  # Plan.transfer_host_page with a peer


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
    absorb_from: int = 2**31 - 1
    enable_prefix_caching: bool = True
    overlap_depth: int = 0
    num_speculative_tokens: int = 0
    peer_timeout: float = 0.0
    num_host_pages: int = 0
    cache_groups: tuple[CacheGroup, ...] = ()


@dataclass(eq=False)
class Request:
    request_id: int
    tokens: list[int]  # prompt, then output
    prompt_length: int
    expanded_length: int  # tokens before this are computed in the expanded form
    min_length: int  # of prompt and output together, as is max_length
    max_length: int
    stops: set[int]
    salt: bytes
    priority: int
    arrival: int
    params: bytes
    role: str
    cached_tokens: int | None = None  # of the prompt, at first admission
    counts_on_load: bool = False  # it has some that the transfer under way loads
    overtaken: int = 0  # by later requests, while this one did not fit

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
    groups: list[SequenceGroupPages]  # of further cache groups
    sent: int = 0  # columns before this one are in the device's block table
    unread: int = 1 << 30  # columns from this one on are read as they are from step `reader` on
    reader: int = 0
    loaded: dict[int, int] = field(default_factory=dict)  # column: expanded tokens of its page
    cacheable: bool = True  # no page of it was refused by the cache
    ended: bool = False  # finished or aborted; here only while something in flight names it


@dataclass(frozen=True)
class Row:
    sequence: Sequence
    start: int  # if every draft in flight is accepted
    earliest: int  # if every one is rejected
    tokens: int
    samples: int  # tokens that it may yield
    decodes: bool


@dataclass(eq=False)
class Transfer:
    """Pages on their way between the device and what is behind it."""

    kind: int
    sequence: Sequence | None  # whose pages; a store's are nobody's
    device_pages: list[int]
    host_pages: list[int]
    write_backs: list[WriteBack] = field(default_factory=list)  # of a store
    contents: list[Content] = field(default_factory=list)  # that a load reads
    tokens: int = 0  # of the sequence, that have their KV once this has ended well
    number: int = 0
    since: float | None = None  # when it was first seen to be under way


@dataclass
class Step:
    number: int
    rows: list[Row] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    group_patches: list[list[list[int]]] = field(default_factory=list)  # by further group

    @property
    def num_tokens(self) -> int:
        return sum(row.tokens for row in self.rows)


class SchedulerState:
    """Who waits, runs and leaves, what is in flight, and whose each page is."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.events = KvEventsModel(config.page_size, announces=config.enable_prefix_caching)
        self.host = HostTierModel(config.num_host_pages, self.events)
        self.groups = [CacheGroupPages(group) for group in config.cache_groups]
        self.cache = PrefixCacheModel(config.page_size, self.groups, self.host, self.events)
        self.free_pages = list(reversed(range(config.num_pages)))
        self.free_slots = list(reversed(range(config.max_num_seqs)))
        self.waiting: list[Request] = []  # in service order, as is running
        self.running: list[Sequence] = []
        self.draining: list[Sequence] = []  # ended; a step in flight names them
        self.leaving: list[Sequence] = []  # ended; a transfer names them
        self.in_flight: list[Step] = []
        self.begun: list[Transfer] = []  # the next plan tells the device of these
        self.transfers: list[Transfer] = []  # under way, of plans
        self.replaced: list[tuple[int, int]] = []  # page, the last step that may read it
        self.arrivals = 0
        self.launched_steps = 0
        self.committed_steps = 0
        self.numbered_transfers = 0
        self.retractions = 0
        self.prefix_query_tokens = 0
        self.prefix_hit_tokens = 0

    def stats(self) -> dict[str, int]:
        free, cached = len(self.free_pages), len(self.cache.unreferenced)
        return {
            "waiting": len(self.waiting),
            "running": len(self.running),
            "loading": sum(map(self._loads, self.running)),
            "pages_used": self.config.num_pages - free - cached,
            "pages_cached": cached,
            "pages_free": free,
            "host_pages_cached": len(self.host.page_of),
            "prefix_query_tokens": self.prefix_query_tokens,
            "prefix_hit_tokens": self.prefix_hit_tokens,
            "retractions": self.retractions,
            "steps": self.committed_steps,
        }

    # What steps and transfers in flight do to a sequence

    def _rows_in_flight(self, sequence: Sequence) -> list[Row]:
        return [row for step in self.in_flight for row in step.rows if row.sequence is sequence]

    def _in_flight(self, sequence: Sequence) -> bool:
        return bool(self._rows_in_flight(sequence)) or self._loads(sequence)

    def _loads(self, sequence: Sequence) -> bool:
        """Its pages are on their way to the device, from the host tier or a peer."""
        return any(t.kind in (LOAD, RECEIVE) for t in self._transfers_of(sequence))

    def _transfers_of(self, sequence: Sequence) -> list[Transfer]:
        return [t for t in self.begun + self.transfers if t.sequence is sequence]

    def _launched(self, sequence: Sequence) -> int:
        """Tokens whose KV is computed when the steps in flight are, drafts taken as accepted."""
        return sequence.computed + sum(row.tokens for row in self._rows_in_flight(sequence))

    def _may_be_written(self, sequence: Sequence, column: int) -> bool:
        """By a step in flight, for all that was known when it was planned."""
        rows = self._rows_in_flight(sequence)
        return any(column >= row.earliest // self.config.page_size for row in rows)

    def _prefills(self, sequence: Sequence) -> bool:
        incomplete = self._launched(sequence) < sequence.prefill_length
        return incomplete and not self._loads(sequence)

    def _may_decode(self, sequence: Sequence) -> bool:
        """Its prefill is over, and its last token is not in flight already."""
        launched = self._launched(sequence)
        complete = launched >= sequence.prefill_length
        return complete and launched + 1 < sequence.request.max_length

    # Pages

    def _available(self) -> int:
        """Pages that can be promised or taken: free or cached only, and not promised."""
        seated = [*self.running, *self.draining, *self.leaving]
        promised = sum(sequence.promised for sequence in seated)
        return len(self.free_pages) + len(self.cache.unreferenced) - promised

    def _take_page(self) -> int:
        return self.free_pages.pop() if self.free_pages else self.cache.evict()

    def _take_pages(self, sequence: Sequence, tokens: int) -> None:
        while len(sequence.pages) < self._pages_for(tokens):
            sequence.pages.append(self._take_page())

    def _take_promised_pages(self, sequence: Sequence, tokens: int) -> None:
        columns = len(sequence.pages)
        self._take_pages(sequence, tokens)
        sequence.promised -= len(sequence.pages) - columns

    def _release(self, sequence: Sequence) -> None:
        """Last page first, so that a page is evicted before the one it continues."""
        for pages, own in zip(self.groups, sequence.groups, strict=True):
            if own.spare is not None:
                pages.free_pages.append(own.spare)
            for held in reversed(own.held):
                self._give_up(pages, held)
        for page in reversed(sequence.pages[sequence.shared :]):
            self.free_pages.append(page)
        for page in reversed(sequence.pages[: sequence.shared]):
            self.free_pages += self.cache.release(page)
        self.free_slots.append(sequence.slot)

    def _give_up(self, pages: CacheGroupPages, held: GroupPage) -> None:
        if held.shared:
            pages.release(held.page)
        else:
            pages.free_pages.append(held.page)

    def _pages_for(self, tokens: int) -> int:
        return -(-tokens // self.config.page_size)

    def _room(self, sequence: Sequence) -> int:
        """Tokens that its pages hold."""
        return len(sequence.pages) * self.config.page_size

    def _expanded_in(self, request: Request, column: int) -> int:
        """Of a column's tokens, how many the request computes in the expanded form."""
        start = column * self.config.page_size
        return sum(
            start <= i < start + self.config.page_size for i in range(request.expanded_length)
        )

    def _content(self, request: Request, column: int) -> Content:
        return (request.salt, tuple(request.tokens[: (column + 1) * self.config.page_size]))
