# SPDX-License-Identifier: MIT
"""What ends, in the scheduler's model: steps, transfers, and requests with them; see
scheduler_model.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scheduler_model_state import (
    FAILED,
    NO_PAGE,
    NO_TOKEN,
    NONE,
    RECEIVE,
    SEND,
    Row,
    SchedulerState,
    Sequence,
    Transfer,
)
from withdrawal_model import Withdrawal, is_withdrawn

Output = dict[str, list[Any]]


class CommitModel(SchedulerState):
    # A step is committed: rows advance, full pages enter the cache, requests end.

    def commit(
        self, step: int, token_ids: Iterable[int], counts: Iterable[int] | None = None
    ) -> Output:
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
        output: Output = {"request": [], "token": [], "row": [], "finish": [], "cached_tokens": []}
        for row in retired.rows:
            if row.sequence.ended:
                if not self._rows_in_flight(row.sequence):
                    self.draining.remove(row.sequence)
                    self._release(row.sequence)
                continue
            self._commit_row(row, yielded.get(row, []), sampling_rows, output)
        self.committed_steps += 1
        self._free_replaced()
        return output

    def _free_replaced(self) -> None:
        while self.replaced and self.replaced[0][1] <= self.committed_steps:
            self.free_pages.append(self.replaced.pop(0)[0])

    def _commit_row(
        self, row: Row, tokens: list[int], sampling_rows: list[Row], output: Output
    ) -> None:
        sequence, request = row.sequence, row.sequence.request
        first = len(request.tokens) == request.prompt_length
        finish = NONE
        kept = 0
        for token in tokens:
            if token == NO_TOKEN:
                finish = FAILED
            else:
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
        if finish == FAILED:
            self._withdraw_unproven_pages(sequence)
            self._end(sequence)
            return
        sequence.computed += kept if row.decodes else row.tokens
        fills_pages = sequence.computed >= (sequence.shared + 1) * self.config.page_size
        self._cache_full_pages(sequence)
        if row.samples and (first or fills_pages):
            self._prove_pages(sequence)
        self._give_up_old_pages(sequence)
        if finish and request.role == "prefill":
            self._begin_send(sequence)
        if finish:
            self._end(sequence)

    def _prove_pages(self, sequence: Sequence) -> None:
        """This step has sampled behind them, unless they took another's place too late for it."""
        if self.committed_steps + 1 >= sequence.reader:
            sequence.unread = 1 << 30
        self.cache.proven.update(sequence.pages[: min(sequence.shared, sequence.unread)])

    def _withdraw_unproven_pages(self, sequence: Sequence) -> None:
        """From the first page on that has never had a sampled token behind it."""
        shared = sequence.pages[: sequence.shared]
        unproven = [page for page in shared if page not in self.cache.proven]
        if not unproven or is_withdrawn(self.cache.content_of(unproven[0])):
            return
        withdrawal = Withdrawal(self.cache.content_of(unproven[0]))
        self.free_pages += self.cache.withdraw(withdrawal)
        for transfer in self.transfers:
            transfer.contents = [withdrawal.name(content) for content in transfer.contents]
            for store in transfer.write_backs:
                store.content = withdrawal.name(store.content)
        for other in self.running:
            if not self._loads(other) and self._builds_on_withdrawn(other):
                other.cacheable = False

    def _builds_on_withdrawn(self, sequence: Sequence) -> bool:
        shared = sequence.pages[: sequence.shared]
        return bool(shared) and is_withdrawn(self.cache.content_of(shared[-1]))

    def _cache_full_pages(self, sequence: Sequence) -> None:
        """If the content was cached meanwhile, that page takes the column of this sequence's."""
        if not self.config.enable_prefix_caching or not sequence.cacheable:
            return
        write_backs = [*self.host.pending, *(w for t in self.transfers for w in t.write_backs)]
        while sequence.computed >= (sequence.shared + 1) * self.config.page_size:
            column = sequence.shared
            if self._may_be_written(sequence, column):
                return
            content = self._content(sequence.request, column)
            expanded = self._expanded_in(sequence.request, column)
            expanded = sequence.loaded.get(column, expanded)
            if not self.cache.may_enter(content, expanded, write_backs):
                sequence.cacheable = False
                return
            cached = self.cache.page_of.get(content)
            # A replaced page is not back before steps in flight have read it: one must be to spare.
            if self.in_flight and self._available() == 0 and cached in self.cache.unreferenced:
                return
            if cached is not None:
                self.replaced.append((sequence.pages[column], self.launched_steps))
                sequence.pages[column] = cached
                self.cache.acquire(cached)
                sequence.sent = min(sequence.sent, column)
                sequence.unread = min(sequence.unread, column)
                sequence.reader = self.launched_steps + 1
            else:
                self.cache.insert(content, sequence.pages[column], expanded)
            sequence.shared += 1
            self._cache_in_groups(sequence, column)

    def _cache_in_groups(self, sequence: Sequence, column: int) -> None:
        """Beside the full-attention page, now or never: a recurrent group's page only if it holds
        the state at the column's end. If there is one already, this one stays the sequence's."""
        content = self._content(sequence.request, column)
        for pages, own in zip(self.groups, sequence.groups, strict=True):
            held = own.at(column)
            if held is None or held.shared:
                continue
            if own.group.kind == "recurrent" and (
                held.state_after != (column + 1) * self.config.page_size
            ):
                continue
            if content not in pages.page_of:
                pages.insert(content, held.page)
                held.shared = True

    def _give_up_old_pages(self, sequence: Sequence) -> None:
        """Those that nothing behind the committed tokens reads, and no step in flight writes."""
        for pages, own in zip(self.groups, sequence.groups, strict=True):
            first = own.group.first_column(sequence.computed, self.config.page_size)
            while own.held and own.held[0].column < first:
                oldest = own.held[0]
                if not oldest.shared and self._may_be_written(sequence, oldest.column):
                    break
                self._give_up(pages, own.held.pop(0))

    # A transfer ends, in any order

    def complete_transfer(self, transfer_id: int, ok: bool = True) -> None:
        """What did not arrive in the host tier is forgotten, what did not come back is computed."""
        ended = [transfer for transfer in self.transfers if transfer.number == transfer_id]
        if not ended:
            raise ValueError("no transfer of that id is under way")
        transfer, sequence = ended[0], ended[0].sequence
        self.transfers.remove(transfer)
        if sequence is None:
            self.host.written(transfer.write_backs, ok)
            return
        withdrawn = any(map(is_withdrawn, transfer.contents))
        for content in reversed(transfer.contents):
            self.host.unpin(content)
        if (ok and withdrawn) or self._builds_on_withdrawn(sequence):
            sequence.cacheable = False
        if sequence.ended:
            self.leaving.remove(sequence)
            self._release(sequence)
        elif ok:
            sequence.computed = transfer.tokens
            self._cache_full_pages(sequence)
            self._free_replaced()
        else:
            self._count_as_not_found(sequence, transfer)

    def overdue_transfers(self, now: float) -> list[int]:
        overdue = []
        for transfer in sorted(self.transfers, key=lambda transfer: transfer.number):
            if transfer.kind in (SEND, RECEIVE) and self.config.peer_timeout:
                transfer.since = now if transfer.since is None else transfer.since
                if now - transfer.since >= self.config.peer_timeout:
                    overdue.append(transfer.number)
        return overdue

    def _count_as_not_found(self, sequence: Sequence, transfer: Transfer) -> None:
        """What the first admission counted as found is taken back; later ones count nothing."""
        request, missing = sequence.request, transfer.tokens - sequence.computed
        sequence.loaded = {}
        if request.counts_on_load:
            assert request.cached_tokens is not None
            request.cached_tokens -= missing
            self.prefix_hit_tokens -= missing

    # A request ends

    def _end(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        sequence.ended = True
        if self._rows_in_flight(sequence):
            self.draining.append(sequence)
        elif self._transfers_of(sequence):
            self.leaving.append(sequence)
        else:
            self._release(sequence)

    def _begin_send(self, sequence: Sequence) -> None:
        """What was asked for here is done; a peer reads the pages."""
        pages = list(sequence.pages)
        self._begin(Transfer(SEND, sequence, pages, [NO_PAGE] * len(pages)))

    def _begin(self, transfer: Transfer) -> None:
        """The next plan will tell the device of it."""
        self.numbered_transfers += 1
        transfer.number = self.numbered_transfers
        self.begun.append(transfer)
