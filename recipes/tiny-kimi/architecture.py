# SPDX-License-Identifier: MIT
"""The network as it is trained: DeepSeek-V3's (arXiv:2412.19437), written for one CPU.

Parameters carry the names of a Hugging Face checkpoint, except that the routed experts of a layer
are stacked in one tensor per projection; `checkpoint_tensors` takes them apart. `config.json` is
`CONFIG`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.0,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 0,
    "q_lora_rank": 192,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rope_theta": 50000.0,
    "rope_scaling": None,
    "rope_interleave": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "use_cache": True,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}


def linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=gain * inputs**-0.5)
    return layer


class RMSNorm(nn.RMSNorm):
    """In fp32 also under autocast, as the reference does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs; pairs come out split in halves, which no dot product notices."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, block: int = 512) -> Tensor:
    """Softmax attention by blocks of queries, which leaves out most of the masked half.

    q, k: [batch, heads, length, 192], v: [batch, heads, length, 128]. Twice as fast here as
    `scaled_dot_product_attention`, whose CPU kernel needs v padded to the width of k.
    """
    length, scale = q.shape[2], q.shape[3] ** -0.5
    side = min(block, length)
    mask = torch.full((side, side), float("-inf")).triu(1)
    outs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        scores = torch.matmul(q[:, :, start:end] * scale, k[:, :, :end].transpose(-1, -2)).float()
        scores[..., start:end] += mask[: end - start, : end - start]
        outs.append(torch.matmul(scores.softmax(-1).to(v.dtype), v[:, :, :end]))
    return torch.cat(outs, dim=2)


class Attention(nn.Module):
    """Multi-head latent attention, expanded to full keys and values (section 2.1.1)."""

    def __init__(self):
        super().__init__()
        c = CONFIG
        hidden, heads, eps = c["hidden_size"], c["num_attention_heads"], c["rms_norm_eps"]
        self.heads, self.rank, self.rope = heads, c["kv_lora_rank"], c["qk_rope_head_dim"]
        self.nope, self.value = c["qk_nope_head_dim"], c["v_head_dim"]
        self.q_a_proj = linear(hidden, c["q_lora_rank"])
        self.q_a_layernorm = RMSNorm(c["q_lora_rank"], eps)
        self.q_b_proj = linear(c["q_lora_rank"], heads * (self.nope + self.rope))
        self.kv_a_proj_with_mqa = linear(hidden, self.rank + self.rope)
        self.kv_a_layernorm = RMSNorm(self.rank, eps)
        self.kv_b_proj = linear(self.rank, heads * (self.nope + self.value))
        self.o_proj = linear(heads * self.value, hidden, gain=0.2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.view(batch, length, self.heads, -1).transpose(1, 2)
        q_nope, q_rope = q.split([self.nope, self.rope], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x).split([self.rank, self.rope], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent))
        kv = kv.view(batch, length, self.heads, -1).transpose(1, 2)
        k_nope, v = kv.split([self.nope, self.value], dim=-1)
        q = torch.cat([q_nope, rotate(q_rope, cos, sin)], dim=-1)
        k_rope = rotate(k_rope.unsqueeze(1), cos, sin).expand(-1, self.heads, -1, -1)
        k = torch.cat([k_nope, k_rope], dim=-1)
        out = causal_attention(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, inner: int):
        super().__init__()
        hidden = CONFIG["hidden_size"]
        self.gate_proj = linear(hidden, inner)
        self.up_proj = linear(hidden, inner)
        self.down_proj = linear(inner, hidden, gain=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    def __init__(self):
        super().__init__()
        experts, hidden = CONFIG["n_routed_experts"], CONFIG["hidden_size"]
        self.weight = nn.Parameter(torch.randn(experts, hidden) * hidden**-0.5)
        self.register_buffer("e_score_correction_bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(weights [tokens, k] fp32, experts [tokens, k]); the bias chooses but does not weigh."""
        with torch.autocast("cpu", enabled=False):
            scores = torch.sigmoid(F.linear(x.float(), self.weight))
        k = CONFIG["num_experts_per_tok"]
        chosen = (scores.detach() + self.e_score_correction_bias).topk(k, dim=-1).indices
        if self.training:
            self.load += torch.bincount(chosen.flatten(), minlength=len(self.load))
        weights = scores.gather(-1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return weights * CONFIG["routed_scaling_factor"], chosen

    @torch.no_grad()
    def rebalance(self, speed: float) -> float:
        """Auxiliary-loss-free balancing (section 2.1.2): push the bias against the load seen.

        Returns the load of the busiest expert relative to the mean.
        """
        mean = self.load.mean()
        imbalance = (self.load.max() / mean).item()
        self.e_score_correction_bias += speed * torch.sign(mean - self.load)
        self.load.zero_()
        return imbalance


class Experts(nn.Module):
    """The routed experts of one layer, stacked: [experts, out, in]."""

    def __init__(self):
        super().__init__()
        n, hidden = CONFIG["n_routed_experts"], CONFIG["hidden_size"]
        inner = CONFIG["moe_intermediate_size"]
        self.gate_proj = nn.Parameter(torch.randn(n, inner, hidden) * hidden**-0.5)
        self.up_proj = nn.Parameter(torch.randn(n, inner, hidden) * hidden**-0.5)
        self.down_proj = nn.Parameter(torch.randn(n, hidden, inner) * 0.2 * inner**-0.5)

    def forward(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        k = chosen.shape[-1]
        order = chosen.flatten().argsort(stable=True)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.gate_proj)).tolist()
        rows = x.index_select(0, order // k).split(counts)
        outs = [
            F.linear(F.silu(F.linear(r, g)) * F.linear(r, u), d)
            for r, g, u, d in zip(rows, self.gate_proj, self.up_proj, self.down_proj, strict=True)
        ]
        outs = torch.cat(outs).index_select(0, order.argsort())
        return (outs.view(len(x), k, -1) * weights.unsqueeze(-1).to(outs.dtype)).sum(1)


class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Router()
        self.experts = Experts()
        self.shared_experts = MLP(CONFIG["moe_intermediate_size"] * CONFIG["n_shared_experts"])

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        routed = self.experts(flat, *self.gate(flat))
        return routed.view_as(x) + self.shared_experts(x)


class Layer(nn.Module):
    def __init__(self, index: int):
        super().__init__()
        hidden, eps = CONFIG["hidden_size"], CONFIG["rms_norm_eps"]
        dense = index < CONFIG["first_k_dense_replace"]
        self.input_layernorm = RMSNorm(hidden, eps)
        self.self_attn = Attention()
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        self.mlp = MLP(CONFIG["intermediate_size"]) if dense else MoE()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class TinyKimi(nn.Module):
    def __init__(self):
        super().__init__()
        hidden, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(vocab, hidden),
                "layers": nn.ModuleList(map(Layer, range(CONFIG["num_hidden_layers"]))),
                "norm": RMSNorm(hidden, CONFIG["rms_norm_eps"]),
            }
        )
        nn.init.normal_(self.model["embed_tokens"].weight, std=0.1)
        self.lm_head = linear(hidden, vocab, gain=0.1)

    def features(self, tokens: Tensor) -> Tensor:
        """tokens: [batch, length] -> what lm_head reads, [batch, length, hidden]."""
        x = self.model["embed_tokens"](tokens)
        cos, sin = rope_tables(tokens.shape[1], x.dtype)
        for layer in self.model["layers"]:
            x = layer(x, cos, sin)
        return self.model["norm"](x)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: [batch, length] -> logits [batch, length, vocab]."""
        return self.lm_head(self.features(tokens))

    def backward_loss(self, rows: Tensor, chunk: int = 512) -> float:
        """Mean cross entropy of rows [batch, length + 1]; leaves its gradient in the parameters.

        The head runs forward and backward chunk by chunk, so its logits stay in the cache.
        """
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.features(rows[:, :-1])
        leaf = features.detach().flatten(0, 1).requires_grad_()
        targets = rows[:, 1:].flatten()
        total = 0.0
        for x, y in zip(leaf.split(chunk), targets.split(chunk), strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = self.lm_head(x)
            loss = F.cross_entropy(logits.float(), y, reduction="sum") / len(targets)
            loss.backward()
            total += loss.item()
        features.backward(leaf.grad.view_as(features))
        return total

    def routers(self) -> list[Router]:
        return [m for m in self.modules() if isinstance(m, Router)]


def rope_tables(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin: [length, rope / 2]."""
    dim = CONFIG["qk_rope_head_dim"]
    frequency = CONFIG["rope_theta"] ** (-torch.arange(0, dim, 2).float() / dim)
    angle = torch.outer(torch.arange(length).float(), frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def checkpoint_tensors(model: TinyKimi) -> dict[str, Tensor]:
    """The tensors of a Hugging Face checkpoint: bf16, the routing bias fp32, experts apart."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            tensors[name] = value.float().clone()
        elif ".mlp.experts." in name:
            prefix, projection = name.rsplit(".", 1)
            for index, expert in enumerate(value):
                key = f"{prefix}.{index}.{projection}.weight"
                tensors[key] = expert.to(torch.bfloat16).contiguous()
        else:
            tensors[name] = value.to(torch.bfloat16).contiguous()
    return tensors
