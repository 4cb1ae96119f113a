"""The commands for people: `python -m pipeline COMMAND`."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.runtime.errors import InputError


def main() -> int:
    """Run one command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="RS-SQA: which segmentation can be trusted?"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    repro = commands.add_parser("repro", help="run every stage that is not up to date, in parallel")
    repro.add_argument(
        "stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)"
    )
    repro.add_argument("--jobs", type=_count, help="stages at once (default: one per GPU, else by cores)")
    submit = commands.add_parser("submit", help="run the cells of a stage as tasks of a SLURM cluster")
    submit.add_argument("stage", metavar="STAGE", help="such as retrain_segmenter, or one of its cells")
    submit.add_argument("--executor", choices=["slurm", "local"], default="slurm", help="local: try it here")
    submit.add_argument("--partition", help="SLURM's partition (default: the cluster's)")
    submit.add_argument(
        "--parts", type=_count, metavar="N", help="N tasks of a stage that works through shards, each its own"
    )
    submit.add_argument("--gpus", type=int, default=0, help="GPUs of a task, on each node (default: 0)")
    submit.add_argument(
        "--nodes", type=_count, default=1, help="nodes of a training, as distributed.nodes says (default: 1)"
    )
    submit.add_argument("--cpus", type=_count, default=1, help="cores of a task (default: 1)")
    submit.add_argument(
        "--memory", type=float, metavar="GB", help="memory of a task (default: the cluster's)"
    )
    submit.add_argument(
        "--minutes",
        type=_count,
        default=1440,
        help="time of one attempt; then the task is put back (default: a day)",
    )
    submit.add_argument("--parallel", type=_count, metavar="N", help="tasks at once (default: all)")
    submit.add_argument(
        "--sbatch",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="such as account=physics",
    )
    submit.add_argument("--no-wait", action="store_true", help="return at once, leave the tasks to SLURM")
    commands.add_parser("check-lock", help="is dvc.lock in step with code and parameters? (needs no data)")
    check = commands.add_parser("check", help="are data sets and caption sources here, whole and readable?")
    check.add_argument(
        "folder",
        nargs="?",
        type=Path,
        metavar="DIR",
        help="holds one folder for each data set, or is one data set's (default: as configured)",
    )
    check.add_argument(
        "--skip-checksums",
        action="store_true",
        help="read no archives for their md5, and decode a sample of the images and labels only",
    )
    counts = commands.add_parser("counts", help="RS-SQED's patches by arithmetic, beside the paper's Table 2")
    counts.add_argument("--csv", action="store_true", help="one flat table for programs")
    counts.add_argument("--tiles", metavar="DATASET", help="the patches of each of its source units")
    page = commands.add_parser("report", help="write the report with times, hardware, versions and commits")
    page.add_argument("--out", type=Path, help="an HTML file (default: logs/report/index.html)")
    arguments = parser.parse_args()
    # `dvc`, and the `python` of its stages, are this environment's, activated or not.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        if arguments.command == "repro":
            from pipeline.commands.repro import repro as run

            return run(arguments.jobs, arguments.stages)
        if arguments.command == "submit":
            from pipeline.commands import cluster

            options = cluster.Options(
                executor=arguments.executor,
                partition=arguments.partition,
                gpus=arguments.gpus,
                nodes=arguments.nodes,
                parts=arguments.parts,
                cpus=arguments.cpus,
                memory=arguments.memory,
                minutes=arguments.minutes,
                parallel=arguments.parallel,
                more=tuple(arguments.sbatch),
                wait=not arguments.no_wait,
            )
            return cluster.submit(arguments.stage, options)
        if arguments.command == "check":
            from pipeline.commands.check import check as run_check

            return run_check(arguments.folder, not arguments.skip_checksums)
        if arguments.command == "counts":
            from pipeline.commands.counts import counts as run_counts

            return run_counts(arguments.csv, arguments.tiles)
        if arguments.command == "report":
            from pipeline.commands.report import report

            return report(arguments.out)
        from pipeline.commands.lock import check_lock

        return check_lock()
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(
            f"{error.name}: expected this package beside {sys.executable}, found none; run "
            "`source .venv/bin/activate` (after `make repro` has set it up), or install requirements.txt",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:  # before or after the stages run
        return 130


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {text}")
    return number


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


if __name__ == "__main__":
    sys.exit(main())
