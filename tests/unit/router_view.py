# SPDX-License-Identifier: MIT
"""What a KV-aware router believes the scheduler's prefix cache holds."""

from __future__ import annotations

import msgspec


class RouterView:
    """Fails when an event contradicts those before it. It knows of one tier, the device."""

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self.blocks: dict[int, int | None] = {}  # hash -> parent
        self.content: dict[int, tuple[str, list[int]]] = {}  # hash -> salt and tokens

    def receive(self, payload: bytes | None) -> None:
        if payload is None:
            return
        _, events, dp_rank = msgspec.msgpack.decode(payload)
        assert dp_rank == 0 and events
        for event in events:
            match event["type"]:
                case "BlockStored":
                    self._store(event)
                case "BlockRemoved":
                    for block in event["block_hashes"]:
                        assert block not in self.blocks.values(), "a parent left before its child"
                        del self.blocks[block], self.content[block]
                case "AllBlocksCleared":
                    self.blocks.clear()
                    self.content.clear()

    def _store(self, event: dict) -> None:
        assert event["block_size"] == self.page_size
        assert len(event["token_ids"]) == self.page_size * len(event["block_hashes"])
        parent = event["parent_block_hash"]
        tokens, size = event["token_ids"], self.page_size
        for i, block in enumerate(event["block_hashes"]):
            assert block not in self.blocks, "a page was stored twice"
            assert parent is None or parent in self.blocks, "a page came before its parent"
            self.blocks[block] = parent
            self.content[block] = (event.get("cache_salt", ""), tokens[i * size : (i + 1) * size])
            parent = block
