# SPDX-License-Identifier: MIT
"""What the sanitizers notice when one synchronisation of a kernel is dropped or altered."""
