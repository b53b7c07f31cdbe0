"""``python -m numbanorm`` and the console script ``numbanorm``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from numbanorm._config import show_config


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="numbanorm", description="Accurate statistics and norms.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="compute, check and time everything on real data")
    demo.add_argument("--output", default="numbanorm-demo.png", help="where to write the picture (%(default)s)")
    commands.add_parser("info", help="print versions, backend, threads and cache folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        try:
            show_config()
        except (ValueError, RuntimeError) as error:
            print(error)
            return 1
        return 0
    try:
        from numbanorm import _demo
    except ModuleNotFoundError as error:
        print(f'the demo needs {error.name}: pip install "numbanorm[demo]"')
        return 1
    _demo.run(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
