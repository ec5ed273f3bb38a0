# SPDX-License-Identifier: MIT
"""What an engine cannot start with is one sentence that names the flag and the way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ts_kernels
import zmq

from dynamo_tokenspeed.engine import startup
from dynamo_tokenspeed.engine.capacity import CapacityError
from dynamo_tokenspeed.model import ModelError
from dynamo_tokenspeed.model import checkpoint as model_checkpoint
from dynamo_tokenspeed.model.config_file import ConfigFile
from dynamo_tokenspeed.protocol import EngineConfig
from dynamo_tokenspeed.tools.random_checkpoint import write_random_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(
        tmp_path_factory.mktemp("startup"),
        tokenizer=False,
        max_position_embeddings=8192,
        num_hidden_layers=1,
    )


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"model": "/no/such/model"}, ModelError, ["/no/such/model"]),
        ({"num_pages": 10}, CapacityError, ["--num-pages 10", "256", "--max-model-len"]),
        ({"kv_cache_bytes": 1000}, CapacityError, ["--kv-cache-memory", "--max-model-len"]),
        ({"kv_cache_bytes": 1 << 50}, CapacityError, ["--kv-cache-memory", "available"]),
        ({"max_model_len": 9000}, CapacityError, ["--max-model-len 9000", "8192"]),
        ({"num_threads": 5000}, CapacityError, ["--num-threads 5000", "1024"]),
        ({"dtype": "float16"}, ModelError, ["float16", "--dtype"]),
        ({"attention_backend": "abacus"}, ts_kernels.NoImplementation, ["abacus"]),
        ({"kv_events_endpoint": "tcp://192.0.2.1:5557"}, OSError, ["192.0.2.1", "--kv-events-"]),
    ],
    ids=[
        "model",
        "pages",
        "memory",
        "machine",
        "context",
        "threads",
        "dtype",
        "backend",
        "kv events",
    ],
)
def test_one_sentence(
    checkpoint: Path, change: dict[str, Any], kind: type[Exception], words: list[str]
) -> None:
    config = {"model": str(checkpoint), "max_model_len": 4096, "num_threads": 1}
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    with pytest.raises(kind) as raised:
        startup.build(EngineConfig(**config | change), context)

    context.destroy(linger=0)
    sentence = str(raised.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence


def test_the_files_of_a_model_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write_random_checkpoint(tmp_path, tokenizer=False, vocab_size=32)
    config = json.loads((directory / "config.json").read_text())
    del config["dtype"], config["torch_dtype"]  # so that the headers say it
    (directory / "config.json").write_text(json.dumps(config))
    read: list[str] = []

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (read.append(name), function(*arguments))[1]

    monkeypatch.setattr(ConfigFile, "read", counted("config.json", ConfigFile.read))
    monkeypatch.setattr(
        model_checkpoint, "read_headers", counted("headers", model_checkpoint.read_headers)
    )
    startup.build(EngineConfig(model=str(directory), max_model_len=64, num_threads=1))

    assert sorted(read) == ["config.json", "headers"]
