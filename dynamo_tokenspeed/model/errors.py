# SPDX-License-Identifier: MIT
"""What goes wrong with a model directory. Every message is one sentence for the user."""


class ModelError(Exception):
    """The model directory cannot be served: missing, unsupported or nonsensical."""


class WeightsError(ModelError):
    """The checkpoint's tensors are not those that its config.json announces."""
