# SPDX-License-Identifier: MIT
"""What the frontend's KV router has heard of its workers' pages."""

from __future__ import annotations

from dynamo_tokenspeed.launch.deployment import Deployment


def events_applied(deployment: Deployment) -> float:
    """KV events that the router's index has taken, since the frontend's start."""
    return sum(
        float(line.rpartition(" ")[2])
        for line in deployment.frontends[0].metrics().splitlines()
        if line.startswith("dynamo_component_kv_cache_events_applied{")
    )
