# SPDX-License-Identifier: MIT
"""Random checkpoints are what `transformers` and the frontend expect of a model directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
import ts_kernels
from safetensors.torch import load_file

from dynamo_tokenspeed.model import Checkpoint, ForwardBatch, KVPool, ModelError, load_model
from dynamo_tokenspeed.tools.random_checkpoint import main, write_random_checkpoint


def test_the_same_arguments_write_the_same_weights(tmp_path: Path) -> None:
    a, b, c = (
        write_random_checkpoint(tmp_path / name, tokenizer=False, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    read = [(d / "model.safetensors").read_bytes() for d in (a, b, c)]
    assert read[0] == read[1]
    assert read[0] != read[2]


def test_the_number_of_shards_does_not_change_the_weights(tmp_path: Path) -> None:
    one = write_random_checkpoint(tmp_path / "1", tokenizer=False)
    many = write_random_checkpoint(tmp_path / "7", tokenizer=False, shards=7)
    expected = load_file(one / "model.safetensors")
    files = sorted(many.glob("*.safetensors"))
    written = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) == 7
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def test_the_tokenizer_encodes_any_text_and_applies_its_chat_template(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, vocab_size=600)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x):\n\treturn 'äöü 🙂'"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(tokenizer) <= 600
    assert len(tokenizer.encode("self")) == 1  # merges were learned, from code

    chat = [{"role": "user", "content": "hi"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>hi<|eos|><|assistant|>"
    assert tokenizer.encode("<|eos|>") == [tokenizer.eos_token_id]
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id


def test_the_command_line_reaches_every_knob(tmp_path: Path) -> None:
    numbers = "--hidden-size 48 --q-lora-rank none --yarn-factor 2 --rms-norm-eps 1e-5"
    flags = ["--no-tokenizer", "--no-norm-topk-prob"]
    assert main([str(tmp_path), *flags, *numbers.split()]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["hidden_size"] == 48
    assert config["q_lora_rank"] is None
    assert config["norm_topk_prob"] is False
    assert config["rope_scaling"]["factor"] == 2.0
    assert config["rms_norm_eps"] == 1e-5


def test_the_command_line_answers_a_contradiction_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--no-tokenizer", "--n-group", "3"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_benchmark_preset_has_51_5_million_parameters(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, preset="bench-51m", dtype="bfloat16", tokenizer=False)
    tensors = load_file(tmp_path / "model.safetensors").values()
    assert round(sum(tensor.numel() for tensor in tensors) / 1e6, 1) == 51.5


def test_a_vocabulary_without_room_for_all_bytes_needs_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="261"):
        write_random_checkpoint(tmp_path, vocab_size=260)
    write_random_checkpoint(tmp_path, vocab_size=260, tokenizer=False)


def test_the_null_model_repeats_one_token_and_writes_nothing(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, arch="null")
    ops = ts_kernels.bind("cpu", torch.float32)
    model = load_model(Checkpoint(tmp_path), "cpu", torch.float32, ops)
    pool = KVPool(model.kv_spec, 2, 16, torch.float32, "cpu")
    ints = torch.zeros(3, dtype=torch.int32)
    longs = torch.arange(3)

    logits = model.forward(
        ForwardBatch(longs, longs, longs, ints[:, None], ints, ints, ints, ints, ints, longs), pool
    )

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json")
    )
    assert logits.shape == (3, 512)
    assert tokenizer.decode(logits.argmax(-1)) == "aaa"
    assert not pool.kv.any()


def test_added_tokens_carry_every_field_that_dynamos_frontend_reads(tmp_path):
    write_random_checkpoint(tmp_path, arch="null")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    fields = {"content", "lstrip", "normalized", "rstrip", "single_word", "special"}
    assert all(set(entry) == fields for entry in config["added_tokens_decoder"].values())
