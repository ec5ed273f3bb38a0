# SPDX-License-Identifier: MIT
"""What Dynamo's frontend needs of a model's directory, checked before the worker starts.

The frontend reads these files by itself, after the worker has registered. What it cannot read
it logs, and lists no model: the worker would be healthy, and every client would get a 404.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from dynamo_tokenspeed.worker.dynamo_versions import skipped_template_tags
from dynamo_tokenspeed.worker.errors import UsageError

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
_NO_CHAT = "give --endpoint-types completions to serve without chat"
_COUNTS = ("vocab_size", "num_hidden_layers", "num_attention_heads", "bos_token_id")


class AddedToken(msgspec.Struct):
    content: str
    lstrip: bool
    normalized: bool
    rstrip: bool
    single_word: bool


_Token = str | AddedToken | None


class TokenizerConfig(msgspec.Struct):
    """The fields that the frontend reads, with the types it insists on."""

    bos_token: _Token = None
    eos_token: _Token = None
    pad_token: _Token = None
    unk_token: _Token = None
    additional_special_tokens: list[str] | None = None
    added_tokens_decoder: dict[str, AddedToken] | None = None
    chat_template: str | list[dict[str, str]] | None = None
    tokenizer_class: str | None = None
    model_max_length: float | None = None
    sp_model_kwargs: dict[str, str] | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    clean_up_tokenization_spaces: bool | None = None
    legacy: bool | None = None
    spaces_between_special_tokens: bool | None = None
    use_default_system_prompt: bool | None = None


class _Tokenizer(msgspec.Struct):
    """The part of tokenizer.json that names tokens beyond its model's."""

    added_tokens: list[Any] = []


def check_frontend_files(
    directory: Path, config: dict[str, Any], *, chat: bool, template: str | None
) -> None:
    """`chat`: /v1/chat/completions is served; `template`: `--custom-jinja-template`.

    Raises `UsageError` with one sentence.
    """
    _check_config(directory, config)
    _check_eos(directory, config)
    if chat:  # without it the frontend does not read tokenizer_config.json either
        _check_chat_template(directory, _tokenizer_config(directory), template)


def _check_config(directory: Path, config: dict[str, Any]) -> None:
    path = directory / CONFIG
    if not isinstance(config.get("model_type"), str):
        raise UsageError(
            f"{path}: the frontend needs the key 'model_type', a name such as \"deepseek_v3\", "
            f"and finds {config.get('model_type')!r}; add it as the model's publisher has it"
        )
    inner = config.get("text_config", {})
    if not isinstance(inner, dict):
        raise UsageError(f"{path}: text_config is {inner!r}, but it must be an object; correct it")
    for keys in (config, inner):
        for name in _COUNTS:
            _check_count(path, name, keys.get(name))
        if "max_position_embeddings" in keys:
            value = keys["max_position_embeddings"]
            _check_count(path, "max_position_embeddings", -1 if value is None else value)


def _check_count(path: Path, name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise UsageError(
            f"{path}: {name} is {value!r}, but the frontend needs a whole number; correct it"
        )


def _tokenizer_config(directory: Path) -> TokenizerConfig:
    path = directory / TOKENIZER_CONFIG
    if not path.exists():
        raise UsageError(
            f"--model {directory}: there is no {TOKENIZER_CONFIG} in it, and the frontend needs "
            f"one to serve chat; add it, or {_NO_CHAT}"
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=TokenizerConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: the frontend cannot read it: {error}; correct it, or {_NO_CHAT}"
        ) from None


def _check_chat_template(
    directory: Path, tokenizer_config: TokenizerConfig, custom: str | None
) -> None:
    where, source = _chat_template(directory, tokenizer_config, custom)
    if not source.strip():
        raise UsageError(
            f"{where}: this chat template is empty; give one with --custom-jinja-template, or "
            f"{_NO_CHAT}"
        )
    _check_syntax(where, source)


def _chat_template(
    directory: Path, tokenizer_config: TokenizerConfig, custom: str | None
) -> tuple[str, str]:
    """Where the template that the frontend will take stands, and its text."""
    for path in [Path(custom)] if custom else [directory / "chat_template.jinja"]:
        if path.exists():
            return str(path), _text(path)
    path = directory / "chat_template.json"
    if path.exists():
        try:
            return str(path), str(json.loads(_text(path))["chat_template"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{path}: it holds no JSON object with 'chat_template'; correct or remove it"
            ) from None
    template = tokenizer_config.chat_template
    where = f"{directory / TOKENIZER_CONFIG}, chat_template"
    if isinstance(template, str):
        return where, template
    if template is None:
        raise UsageError(
            f"--model {directory}: it has no chat template (chat_template.jinja, or chat_template "
            f"in {TOKENIZER_CONFIG}); give one with --custom-jinja-template, or {_NO_CHAT}"
        )
    for named in template:
        if "default" in named:
            return where, named["default"]
    raise UsageError(
        f"{where}: the frontend does not read a list of named templates; give the one to use "
        f"with --custom-jinja-template, or {_NO_CHAT}"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: it cannot be read: {error}; correct or remove it") from None


def _check_syntax(where: str, source: str) -> None:
    """Jinja's own parser knows what the frontend's knows, and the names of filters as well."""
    import jinja2
    from dynamo.common.backend.worker import WorkerConfig

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        environment.compile(skipped_template_tags(WorkerConfig).sub("", source))
    except jinja2.TemplateError as error:
        raise UsageError(
            f"{where}: the frontend cannot use this chat template: {error}; give another with "
            f"--custom-jinja-template, or {_NO_CHAT}"
        ) from None


def _check_eos(directory: Path, config: dict[str, Any]) -> None:
    """In the places where the frontend looks for a token that ends an answer."""
    tokenizer = _json_object(directory / TOKENIZER_CONFIG)
    ids = (
        config.get("eos_token_id"),
        config.get("text_config", {}).get("eos_token_id"),
        _json_object(directory / "generation_config.json").get("eos_token_id"),
    )
    texts = (
        tokenizer.get("eos_token"),
        _json_object(directory / "special_tokens_map.json").get("eos_token"),
    )
    if any(map(_are_token_ids, ids)):
        return
    if any(_content(text) in _special_tokens(directory, tokenizer) for text in texts if text):
        return
    raise UsageError(
        f"--model {directory}: it names no token that ends an answer, and the frontend needs one; "
        "add eos_token_id to generation_config.json"
    )


def _are_token_ids(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(type(token_id) is int and token_id >= 0 for token_id in values)


def _special_tokens(directory: Path, tokenizer_config: dict[str, Any]) -> set[Any]:
    decoder = tokenizer_config.get("added_tokens_decoder")
    path = directory / "tokenizer.json"
    added = (
        msgspec.json.decode(path.read_bytes(), type=_Tokenizer).added_tokens
        if path.exists()
        else []
    )
    return {_content(token) for token in [*(decoder or {}).values(), *added]}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _json_object(path: Path) -> dict[str, Any]:
    """Empty where there is none, or none that can be read: others complain of that."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
