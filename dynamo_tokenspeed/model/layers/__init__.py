# SPDX-License-Identifier: MIT
"""What models are made of. A layer knows its sizes, its weights and their places in a checkpoint,
and the ops that it calls; it knows no family.

A layer works on flattened tokens `[T, ...]` and on the shard that it holds: its sizes are those of
its config. Hidden states enter as Replicate and leave as Partial: the sum over all ranks counts.
"""
