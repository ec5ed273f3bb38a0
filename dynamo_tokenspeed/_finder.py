# SPDX-License-Identifier: MIT
"""Makes `dynamo.tokenspeed` mean this worker, without touching another wheel's file.

`dynamo` is a namespace package, and the ai-dynamo wheel already carries a
`dynamo/tokenspeed/` of its own. `dynamo_tokenspeed.pth`, at the top of
site-packages, imports this module at interpreter start; the finder below then
answers for exactly one name, before the path is searched. Uninstalling our
wheel removes the `.pth`, and Dynamo's own package is back.

Every interpreter of the environment runs this file: `importlib.util` (12 ms)
is imported only when somebody asks for the name.
"""

import sys

NAME = "dynamo.tokenspeed"


class DynamoTokenspeedFinder:
    """A meta-path finder that knows one package."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name != NAME:
            return None
        import importlib.util
        import os

        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dynamo_package")  # noqa: PTH100, PTH118, PTH120
        init = os.path.join(folder, "__init__.py")  # noqa: PTH118
        if not os.path.exists(init):  # noqa: PTH110
            return None  # half removed: leave the name to whoever else has it
        return importlib.util.spec_from_file_location(
            name, init, submodule_search_locations=[folder]
        )


sys.meta_path.insert(0, DynamoTokenspeedFinder)  # type: ignore[arg-type]
