# SPDX-License-Identifier: MIT
"""Write the trained network as a Hugging Face checkpoint; check it against `transformers`."""

import json
from pathlib import Path

import torch
from architecture import CONFIG, TinyKimi, checkpoint_tensors
from safetensors.torch import save_file
from tokenizers import Tokenizer


def export(model: TinyKimi, directory: Path) -> None:
    """config.json, generation_config.json and model.safetensors beside the tokenizer's files."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    ids = {
        "bos_token_id": tokenizer.token_to_id("[BOS]"),
        "eos_token_id": [tokenizer.token_to_id(t) for t in ("[EOS]", "<|im_end|>")],
        "pad_token_id": tokenizer.token_to_id("[PAD]"),
    }
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
    _write_json(directory / "config.json", CONFIG | ids)
    _write_json(directory / "generation_config.json", ids | sampling)
    tensors = checkpoint_tensors(model)
    path = directory / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # save_file leaves it readable by its owner alone


@torch.no_grad()
def compare(model: TinyKimi, directory: Path, tokens: torch.Tensor) -> float:
    """Largest difference of a logit from `transformers`, both in fp32 on the exported weights.

    tokens: [batch, length]. The network is left with weights rounded to bf16, as exported.
    """
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.copy_(parameter.bfloat16())
    difference = model.eval()(tokens) - reference(tokens).logits
    return difference.abs().max().item()


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
