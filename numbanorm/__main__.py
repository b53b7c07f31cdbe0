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
    bench = commands.add_parser(
        "bench",
        help="measure this machine: shares of the memory's speed, ratios to NumPy and torch",
        description="Shares of the speed of memory, and ratios to NumPy and, where it is installed, torch. "
        "Takes about three minutes and 2 GB of memory.",
    )
    bench.add_argument("--quick", action="store_true", help="fewer and smaller cases: 30 s at most, once compiled")
    bench.add_argument("--plot", metavar="FILE", help="draw bytes a second under the lines of read and copy")
    bench.add_argument("--json", metavar="FILE", help="write all numbers")
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
        return _bench(options) if options.command == "bench" else _demo(options)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in ("rich", "matplotlib"):
            raise
        print(f'numbanorm {options.command} needs {package}: pip install "numbanorm[{options.command}]"')
        return 1


def _bench(options: argparse.Namespace) -> int:
    from numbanorm._bench import command

    return command.run("quick" if options.quick else "user", options.plot, options.json)


def _demo(options: argparse.Namespace) -> int:
    from numbanorm import _demo

    _demo.run(options.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
