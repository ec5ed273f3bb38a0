# SPDX-License-Identifier: MIT
"""The package that `dynamo.tokenspeed` names once dynamo-tokenspeed is installed."""
