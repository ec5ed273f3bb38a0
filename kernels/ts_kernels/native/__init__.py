# SPDX-License-Identifier: MIT
"""Backend `native`: C++ kernels for CPUs, few and fused, bound by memory (`kernels/csrc/`).

The instruction set is chosen when the module is loaded: AVX-512 with bf16 dot products, AVX-512,
AVX2, or plain vectors of four. Sums are in fp32.

*The same bits in any company.* An output's order of additions depends on the op's own reduction
length and, in attention, on the row's own context: not on how many tokens or rows the call has, on
their order, or on the number of threads. So a request's numbers do not change with its batch, and
a prompt's not with how it is cut into chunks. (Other instruction sets give other bits.)

*Who checks what.* The public functions check sizes and dtypes before they call. A bound op trusts
its caller with them, since looking at them takes as long as a small kernel, and checks the values
that it uses as an index: experts, positions, places in the cache.

Ops without a native kernel (`embedding`, `token_logprobs`) come from the next backend.
"""

from __future__ import annotations

import functools

from ts_kernels import threads
from ts_kernels.registry import BackendUnavailable, Implementation, Registry

_PRIORITY = 10


def register(registry: Registry) -> None:
    try:
        from ts_kernels import _native
    except ImportError as error:
        raise BackendUnavailable(f"its extension module is not built ({error})") from error
    # They import the extension module.
    from ts_kernels.native import attention, dense, moe, norm, rope, sampling, step

    if _native.isa() == "baseline":
        raise BackendUnavailable("this CPU has no AVX2, and without it PyTorch is faster")
    _take_the_usable_cpus()
    for function in (
        dense.linear,
        dense.head_linear,
        norm.rms_norm,
        norm.add_rms_norm,
        norm.silu_and_mul,
        rope.rope_interleaved,
        attention.mla_cache_write,
        attention.mla_decode,
        attention.mla_prefill,
        moe.moe_route,
        moe.moe_experts,
        sampling.sample,
        step.prepare_step,
        step.append_tokens,
    ):
        registry.register(
            Implementation(
                function.__name__,
                "native",
                function,
                devices=frozenset({"cpu"}),
                priority=_PRIORITY,
            )
        )


@functools.cache  # a second registry leaves alone what was chosen since
def _take_the_usable_cpus() -> None:
    from ts_kernels import _native

    _native.set_num_threads(threads.usable_cpus())
