# SPDX-License-Identifier: MIT
"""The model's defaults for what a request leaves out, read as vLLM reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynamo_tokenspeed.worker.args import parse_args
from dynamo_tokenspeed.worker.errors import UsageError
from dynamo_tokenspeed.worker.generation_config import (
    GenerationDefaults,
    read_generation_defaults,
)

CONFIG: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "max_new_tokens": 100,
    "transformers_version": "4.57.0",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write(tmp_path, CONFIG)
    return tmp_path


def write(folder: Path, config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps(config))


def read(model: Path, source: str = "auto", **override: Any) -> GenerationDefaults:
    return read_generation_defaults(str(model), source, override)


def test_auto_is_the_models_own_file(model: Path) -> None:
    defaults = read(model)
    assert defaults.sampling == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert (defaults.max_tokens, defaults.eos_token_ids) == (100, (2, 3))


def test_a_model_without_a_file_has_neutral_defaults(tmp_path: Path) -> None:
    assert read(tmp_path) == GenerationDefaults()


def test_vllm_is_neutral_and_keeps_what_ends_an_answer(model: Path) -> None:
    defaults = read(model, "vllm")
    assert (defaults.sampling, defaults.max_tokens) == ({}, None)
    assert defaults.eos_token_ids == (2, 3)


def test_a_directory_takes_the_place_of_the_models(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", {"min_p": 0.1, "repetition_penalty": 1.1, "eos_token_id": 7})
    defaults = read(model, str(tmp_path / "other"))
    assert defaults.sampling == {"min_p": 0.1, "repetition_penalty": 1.1}
    assert (defaults.max_tokens, defaults.eos_token_ids) == (None, (7,))


def test_overrides_win_one_by_one(model: Path) -> None:
    defaults = read(model, temperature=0, max_new_tokens=7)
    assert defaults.sampling == {"temperature": 0, "top_k": 20, "top_p": 0.95}
    assert defaults.max_tokens == 7
    assert read(model, "vllm", top_p=0.5).sampling == {"top_p": 0.5}


def test_a_value_of_null_is_no_default(tmp_path: Path) -> None:
    write(tmp_path, dict.fromkeys(CONFIG))
    assert read(tmp_path) == GenerationDefaults()


def test_the_defaults_in_force_are_one_line(model: Path) -> None:
    line = str(read(model))
    assert line == "temperature 0.6, top_p 0.95, top_k 20, at most 100 tokens"
    assert str(GenerationDefaults()) == "neutral"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"min_p": 2}, "min_p is 2"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"eos_token_id": "</s>"}, "eos_token_id holds '</s>'"),
        ({"eos_token_id": [1, -2]}, "eos_token_id holds -2"),
    ],
)
def test_a_default_that_no_request_could_have_is_refused(
    model: Path, change: dict[str, Any], sentence: str
) -> None:
    write(model, CONFIG | change)
    with pytest.raises(UsageError, match=sentence) as refusal:
        read(model)
    assert "generation_config.json" in str(refusal.value)
    assert "correct it" in str(refusal.value)


def test_a_bad_default_that_is_not_used_harms_nobody(model: Path) -> None:
    write(model, CONFIG | {"temperature": -1})
    assert read(model, "vllm").sampling == {}


def test_a_directory_without_the_file_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--generation-config.*there is no generation_config"):
        read(model, str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "override-generation-config"),
        ("[]", "must be a JSON object"),
        ('{"presence_penalty": 1}', "'presence_penalty' is none of temperature"),
    ],
)
def test_an_override_that_is_none_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_args(["--model", "m", "--override-generation-config", text])


def test_an_override_out_of_range_names_the_flag(model: Path) -> None:
    with pytest.raises(UsageError, match="--override-generation-config: top_p is 2"):
        read(model, top_p=2)


def test_the_flags_have_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_GENERATION_CONFIG", "vllm")
    monkeypatch.setenv("TS_OVERRIDE_GENERATION_CONFIG", '{"top_k": 3}')
    args = parse_args(["--model", "m"])
    assert (args.generation_config, args.override_generation_config) == ("vllm", {"top_k": 3})
