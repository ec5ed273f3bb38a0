# SPDX-License-Identifier: MIT
"""An agent-like conversation through Dynamo's frontend and two workers, measured."""
