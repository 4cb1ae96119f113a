"""The commands for people: `python -m pipeline COMMAND`."""

import argparse
import sys

from pipeline.runtime.errors import InputError


def main() -> int:
    """Run one command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="RS-SQA: which segmentation can be trusted?"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    repro = commands.add_parser("repro", help="run every stage that is not up to date, in parallel")
    repro.add_argument("--jobs", type=int, help="stages at once (default: one per GPU, else by cores)")
    commands.add_parser("check-lock", help="is dvc.lock in step with code and parameters? (needs no data)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "repro":
            from pipeline.commands.repro import repro as run

            return run(arguments.jobs)
        from pipeline.commands.lock import check_lock

        return check_lock()
    except InputError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
