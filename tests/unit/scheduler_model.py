# SPDX-License-Identifier: MIT
"""The scheduler's policy, slow and obvious: what the C++ must decide, call for call.

Nothing here is indexed, cached or incremental: a page's content is named by its salt
and every token up to its end, what steps in flight do is looked up in their rows, and
each list is searched from its beginning. The one thing it shares with the C++ is the
policy; page and slot ids follow because free ones are a stack (last in, first out).

This file plans. scheduler_model_state.py is what there is to plan with, commit_model.py ends
what was planned, plan_model.py puts it into a plan's fields; pages that no sequence holds are
the business of prefix_cache_model.py, host_tier_model.py and cache_group_model.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from cache_group_model import CacheGroup, CacheGroupPages, GroupPage, SequenceGroupPages
from commit_model import CommitModel
from kv_events_model import Content, Event
from plan_model import what_the_device_is_told
from prefix_cache_model import Match
from scheduler_model_state import (
    DISPLACE,
    LOAD,
    NO_PAGE,
    RECEIVE,
    SEND,
    STORE,
    Config,
    Request,
    Row,
    Sequence,
    Step,
    Transfer,
)

__all__ = ["CacheGroup", "Config", "SchedulerModel"]

WINDOW = 32  # requests passed over in one step
FULL_ATTENTION = -1  # where a number counts further cache groups


class SchedulerModel(CommitModel):
    """Calls as `ts_scheduler.Scheduler` takes them; plans and outputs are dicts of lists."""

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
        role: str = "aggregated",
    ) -> None:
        tokens = [int(token) for token in prompt]
        request = Request(
            request_id=request_id,
            tokens=tokens,
            prompt_length=len(tokens),
            expanded_length=min(len(tokens), self.config.absorb_from),
            min_length=len(tokens) + min_tokens,
            max_length=min(len(tokens) + max_tokens, self.config.max_model_len),
            stops=set(stop_token_ids) | (set() if ignore_eos else set(eos_token_ids)),
            salt=cache_salt,
            priority=priority,
            arrival=self.arrivals,
            params=params,
            role=role,
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

    def plan(self) -> dict[str, Any] | None:
        if len(self.in_flight) > self.config.overlap_depth:
            raise RuntimeError("too many steps are in flight")
        self.step = Step(self.launched_steps + 1)
        self.step.group_patches = [[] for _ in self.groups]
        self.without_row: list[Sequence] = []
        somebody_gave_way = self._plan_decodes()
        self._plan_prefills()
        # Whoever just gave way shall not fight for the pages in the same step.
        if not somebody_gave_way:
            self._admit()
        self._tell_of_transfers()
        if not (self.step.rows or self.step.admitted or self.step.transfers):
            return None
        self.launched_steps += 1
        self.in_flight.append(self.step)
        return what_the_device_is_told(self.step)

    def _plan_decodes(self) -> bool:
        """Every sequence takes the pages without which it cannot go on, oldest first; who decodes
        gets a row, with drafts if it can.

        While there is no page the youngest gives way: it is retracted, or, as long as a step or a
        transfer in flight names it, gets no row in this step; the sequence in need then gets none
        either. Nobody else gives way while pages of an ended sequence are on their way back.
        """
        somebody_gave_way = False
        for sequence in list(self.running):
            while self._wants_row(sequence) and (lacking := self._lacking(sequence)) is not None:
                if self._available_in(lacking) > 0:
                    self._take_to_go_on(sequence, lacking)
                    continue
                somebody_gave_way = True
                youngest = [s for s in self.running if self._wants_row(s)][-1]
                if self.draining:
                    self.without_row.append(sequence)
                elif self._in_flight(youngest):
                    self.without_row += [youngest, sequence]
                else:
                    self._retract(youngest)
            if self._wants_row(sequence) and self._may_decode(sequence):
                self._plan_decode(sequence)
        return somebody_gave_way

    def _lacking(self, sequence: Sequence) -> int | None:
        """The group of a page without which the sequence cannot go on. A prefill's pages of full
        attention are promised to it; of each further group it wants one in hand, since where its
        chunk will end is not known yet."""
        start = self._launched(sequence)
        if self._may_decode(sequence):
            if start == self._room(sequence):
                return FULL_ATTENTION
            needy = [bool(own.to_open(start, start + 1)) for own in sequence.groups]
        else:
            needy = [self._prefills(sequence)] * len(sequence.groups)
        for index, own in enumerate(sequence.groups):
            if needy[index] and own.spare is None:
                return index
        return None

    def _available_in(self, group: int) -> int:
        return self._available() if group == FULL_ATTENTION else self.groups[group].available()

    def _take_to_go_on(self, sequence: Sequence, group: int) -> None:
        if group == FULL_ATTENTION:
            sequence.pages.append(self._take_page())
        else:
            sequence.groups[group].spare = self.groups[group].take()

    def _plan_decode(self, sequence: Sequence) -> None:
        """Drafts: as many as may still be kept and as pages allow if one is left to each younger
        sequence."""
        start = self._launched(sequence)
        younger = self.running[self.running.index(sequence) + 1 :]
        left = sum(map(self._wants_row, younger))
        most = min(self.config.num_speculative_tokens, sequence.request.max_length - start - 2)
        spare = max(0, self._available() - left)
        reachable = self._room(sequence) + spare * self.config.page_size
        drafts = min(most, reachable - start - 1)
        self._take_pages(sequence, start + 1 + drafts)
        tokens = min(1 + drafts, self._room_in_groups(sequence, left))
        self._open_in_groups(sequence, tokens)
        self._append_row(sequence, start, tokens, tokens, decodes=True)

    def _retract(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self._queue(sequence.request)
        self.retractions += 1

    def _plan_prefills(self) -> None:
        for sequence in self.running:
            if self._wants_row(sequence) and self._prefills(sequence):
                self._plan_chunk(sequence)

    def _plan_chunk(self, sequence: Sequence) -> None:
        start = self._launched(sequence)
        rest = sequence.prefill_length - start
        expanded = sequence.request.expanded_length - start  # a chunk has one form
        tokens = min(
            expanded if expanded > 0 else rest,
            self.config.chunked_prefill_size,
            self._budget_left(),
            self._room_in_groups(sequence, 0),
        )
        if any(own.group.kind == "recurrent" for own in sequence.groups):
            tokens = self._up_to_a_boundary(start, tokens)
        if tokens == 0:
            return
        self._open_in_groups(sequence, tokens)
        self._take_promised_pages(sequence, start + tokens)
        samples = 1 if tokens == rest else 0
        self._append_row(sequence, start, tokens, samples, decodes=False)

    def _up_to_a_boundary(self, start: int, tokens: int) -> int:
        """The state at the end of a page can be matched later, and only the state at a chunk's end
        is kept: so it ends at the last boundary that it reaches."""
        boundary = (start + tokens) // self.config.page_size * self.config.page_size
        return boundary - start if boundary > start else tokens

    def _room_in_groups(self, sequence: Sequence, left: int) -> int:
        """Tokens that it can compute in this step with the windows' pages there are, if so many are
        left to others. (Of a recurrent group a row opens one page at most, which is in hand.)"""
        start = self._launched(sequence)
        room = self.config.max_model_len
        for pages, own in zip(self.groups, sequence.groups, strict=True):
            if own.group.kind == "recurrent":
                continue
            more = int(own.spare is not None) + max(0, pages.available() - left)
            first = own.to_open(start, start + 1).start
            room = min(room, (first + more) * self.config.page_size - start)
        return room

    def _open_in_groups(self, sequence: Sequence, tokens: int) -> None:
        start = self._launched(sequence)
        for index, own in enumerate(sequence.groups):
            for column in own.to_open(start, start + tokens):
                page, own.spare = own.spare, None
                page = self.groups[index].take() if page is None else page
                own.held.append(GroupPage(column, page, shared=False))
            own.held[-1].state_after = start + tokens
            for held in own.held:
                if not held.sent:
                    held.sent = True
                    self.step.group_patches[index].append([sequence.slot, held.column, held.page])

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
            prefix = self._found_prefix(request)
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

    def _consider(self, request: Request, prefix: Match) -> Literal["fits", "blocked", "waits"]:
        if self._a_page_is_being_computed(request):
            return "waits"
        # A page for each running sequence stays available, so that admission retracts nobody.
        admissible = self._available() - len(self.running)
        unreferenced = [page for page in prefix.pages if self.cache.references[page] == 0]
        needed = self._pages_to_finish(request, prefix) + len(unreferenced)
        fits = needed <= admissible and self._groups_fit(request)
        return "fits" if fits else "blocked"

    def _groups_fit(self, request: Request) -> bool:
        """Nothing is promised in further groups, but nobody is admitted into a shortage."""
        needed = self._pages_for(len(request.tokens))
        return not self.running or all(
            pages.available() - len(self.running)
            >= min(needed, pages.group.least_pages(self.config.page_size))
            for pages in self.groups
        )

    def _found_prefix(self, request: Request) -> Match:
        if not self.config.enable_prefix_caching:
            return Match()
        found = self.cache.match(
            request.salt,
            request.tokens,
            self._matchable(request),
            lambda column, expanded: self._accepts(request, column, expanded),
        )
        # A peer sends what is not on the device.
        return Match(found.pages) if request.role == "decode" else found

    def _accepts(self, request: Request, column: int, expanded: int) -> bool:
        """For tokens that it has generated a request takes only what it would compute itself."""
        in_prompt = (column + 1) * self.config.page_size <= request.prompt_length
        return in_prompt or expanded == self._expanded_in(request, column)

    def _matchable(self, request: Request) -> int:
        # At least one token must be computed, for its logits.
        return (len(request.tokens) - 1) // self.config.page_size

    def _a_page_is_being_computed(self, request: Request) -> bool:
        """What a step in flight or a prefill of this one computes, or a transfer brings to the
        device, is better waited for. The page that counts is a sequence's first one that is not
        cached yet."""
        if not self.config.enable_prefix_caching:
            return False
        in_flight = [sequence for sequence in self.running if self._in_flight(sequence)]
        planned = [row.sequence for row in self.step.rows if not row.decodes]
        return any(
            s.cacheable
            and s.shared < self._matchable(request)
            and self._content(s.request, s.shared) == self._content(request, s.shared)
            for s in in_flight + planned
        )

    def _pages_to_finish(self, request: Request, prefix: Match) -> int:
        return self._pages_for(len(request.tokens)) - len(prefix.pages)

    def _seat(self, request: Request, prefix: Match) -> None:
        found = len(prefix) * self.config.page_size
        self.waiting.remove(request)
        # References first: what was found must outlive the evictions that taking pages brings.
        for page in prefix.pages:
            self.cache.acquire(page)
        for content in prefix.in_host:
            self.host.pin(content)
        request.counts_on_load = request.cached_tokens is None and bool(prefix.in_host)
        if request.cached_tokens is None:
            request.cached_tokens = found
            if self.config.enable_prefix_caching:
                self.prefix_query_tokens += request.prompt_length
                self.prefix_hit_tokens += found
        request.overtaken = 0
        sequence = Sequence(
            request=request,
            slot=self.free_slots.pop(),
            pages=list(prefix.pages),
            shared=len(prefix.pages),
            promised=self._pages_to_finish(request, prefix),
            computed=len(prefix.pages) * self.config.page_size,
            prefill_length=len(request.tokens),
            groups=[self._matched_in_group(request, pages, len(prefix)) for pages in self.groups],
        )
        self.running.append(sequence)
        self.running.sort(key=lambda s: s.request.service_order)
        self.step.admitted.append(sequence)
        if request.role == "decode":
            self._begin_receive(sequence)
        elif prefix.in_host:
            self._begin_load(sequence, prefix.in_host)
        else:
            self._plan_first_chunk(sequence)

    def _matched_in_group(
        self, request: Request, pages: CacheGroupPages, columns: int
    ) -> SequenceGroupPages:
        own = SequenceGroupPages(pages.group, self.config.page_size)
        for column in self.cache.columns_read(pages, columns):
            page = pages.acquire(self._content(request, column))
            own.held.append(GroupPage(column, page, shared=True))
        return own

    def _plan_first_chunk(self, sequence: Sequence) -> None:
        while (lacking := self._lacking(sequence)) is not None:
            if self._available_in(lacking) == 0:
                return
            self._take_to_go_on(sequence, lacking)
        self._plan_chunk(sequence)

    # Transfers: begun by a plan, ended in any order

    def _begin_load(self, sequence: Sequence, contents: list[Content]) -> None:
        loaded = sequence.computed + len(contents) * self.config.page_size
        self._take_promised_pages(sequence, loaded)
        pages = sequence.pages[sequence.shared :]
        host_pages = [self.host.page_of[content] for content in contents]
        expanded = [self.cache.expanded[content] for content in contents]
        sequence.loaded = dict(enumerate(expanded, start=sequence.shared))
        self._begin(Transfer(LOAD, sequence, pages, host_pages, contents=contents, tokens=loaded))

    def _begin_receive(self, sequence: Sequence) -> None:
        """All but the last token of the prompt, which is computed here, for its logits. If it has
        to be done again, the prompt is computed here."""
        received = max(sequence.computed, len(sequence.request.tokens) - 1)
        sequence.request.role = "aggregated"
        self._take_promised_pages(sequence, received)
        pages = sequence.pages[sequence.shared :]
        self._begin(Transfer(RECEIVE, sequence, pages, [NO_PAGE] * len(pages), tokens=received))

    def _tell_of_transfers(self) -> None:
        """Stores come first: what the device evicts is read before anything is written over it.
        What only loads write over, no row waits for. Sends come last."""
        loads = [t for t in self.begun if t.kind in (LOAD, RECEIVE)]
        loaded = {page for transfer in loads for page in transfer.device_pages}
        pending = self.host.take_pending()
        for kind, displaced in ((STORE, False), (DISPLACE, True)):
            stores = [s for s in pending if (s.device_page in loaded) == displaced]
            if stores:
                pages = [store.device_page for store in stores]
                host_pages = [store.host_page for store in stores]
                self._begin(Transfer(kind, None, pages, host_pages, write_backs=stores))
        order = {STORE: 0, DISPLACE: 1, LOAD: 2, RECEIVE: 2, SEND: 3}
        self.step.transfers = sorted(self.begun, key=lambda transfer: order[transfer.kind])
        self.transfers += self.begun
        self.begun = []

    # The rest of the interface

    def kv_events(self) -> list[Event] | None:
        return self.events.take() or None

    def clear_prefix_cache(self) -> bool:
        if self.stats()["pages_used"] > 0:
            return False
        self.free_pages += self.cache.clear()
        return True

    def _wants_row(self, sequence: Sequence) -> bool:
        return sequence in self.running and sequence not in self.without_row

    def _budget_left(self) -> int:
        return self.config.max_num_batched_tokens - self.step.num_tokens

    def _queue(self, request: Request) -> None:
        self.waiting.append(request)
        self.waiting.sort(key=lambda other: other.service_order)
