# SPDX-License-Identifier: MIT
"""Our engine: scheduler, step loop and executor as in the engine process."""

import argparse

from contender import serve

from dynamo_tokenspeed.engine.offline import OfflineEngine
from dynamo_tokenspeed.protocol import EngineConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    engine = OfflineEngine(
        EngineConfig(model=args.model, dtype=args.dtype, enable_prefix_caching=False)
    )

    def generate(prompts: list[list[int]], output: int) -> list[list[int]]:
        done = engine.generate(prompts, max_tokens=output, ignore_eos=True)
        return [completion.token_ids for completion in done]

    serve("ours", f"dynamo-tokenspeed, {args.dtype}", engine.vocab_size, generate)


if __name__ == "__main__":
    main()
