# SPDX-License-Identifier: MIT
"""`python -m dynamo_tokenspeed.launch`: serve a recipe, hold the demo, print a manifest."""

from __future__ import annotations

import argparse
import signal
import sys

from dynamo_tokenspeed.launch import LaunchError, manifest, serve
from dynamo_tokenspeed.launch.demo import command as demo


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dynamo_tokenspeed.launch", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve.add_command(commands)
    demo.add_command(commands)
    manifest.add_command(commands)
    args = parser.parse_args(argv)
    # SIGTERM, and SIGHUP of a closed terminal, take the same way out as Ctrl-C.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        return int(args.run(args))
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
