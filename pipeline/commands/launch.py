"""Trainings in several processes: torch's launcher, started by the stage itself, once on each node.

On several nodes the same command runs on each (`srun`, `python -m pipeline submit --nodes`); they meet at
`runtime.rendezvous`, or on the first node of a SLURM job. A stage's process becomes the launcher when its
training is not finished; the processes that train run the stage's command again and find themselves launched.
"""

import contextlib
import datetime
import ipaddress
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.runtime.distributed import (
    BEAT,
    FOLLOWED,
    LAUNCHER,
    MEETING,
    OVER,
    STOP,
    end_with_launcher,
    explain,
    joined,
    launched,
    record,
)
from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    from pipeline.commands.stage import Stage

STOPPED = 128 + signal.SIGTERM  # exit code of a training that has saved
CASCADE = 5.0  # seconds after the first failure in which the others still are failures of their own


class ProcessesNeededError(Exception):
    """The stage trains in several processes, and this is none of them."""


def run(main: Callable[["Stage"], None], stage: "Stage") -> None:
    """`main` as one of the processes of a training, or as what starts them where it asks for them."""
    if not launched():
        try:
            main(stage)
        except ProcessesNeededError:
            settings = stage.config.distributed
            start(stage.name, settings.nodes, settings.processes, stage.config.runtime.rendezvous)
        return
    end_with_launcher()
    found = int(os.environ["WORLD_SIZE"])
    if found != stage.processes:
        raise InputError(f"distributed: expected {stage.processes} processes, torchrun has started {found}")
    try:
        with joined(stage.device) as stage.member:
            main(stage)
    except (InputError, OSError):
        raise
    except Exception as error:
        record(explain(error), traceback.format_exc())
        sys.exit(1)


def start(name: str, nodes: int, processes: int, rendezvous: str | None) -> None:
    """Run this process's own command as `processes` processes here, of all on `nodes` nodes, to their end.

    SIGTERM and SIGINT let the first process save; a second one ends all at once. Raises SystemExit with the
    reason when a process fails, and InputError when the nodes do not find each other.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # one sentence says what went wrong
    host, port, number = address(nodes, rendezvous)
    store, port, node = meet(host, port, nodes, number)
    stopped: list[int] = []

    def remember(number: int, frame: object) -> None:
        if stopped:
            os._exit(128 + number)  # the processes follow
        stopped.append(number)

    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=nodes,
            max_nodes=nodes,
            nproc_per_node=processes,
            run_id=name,
            rdzv_backend="static",
            rdzv_endpoint=f"{host}:{port}",
            rdzv_configs={"rank": node, "timeout": int(MEETING)},
            max_restarts=0,
            local_addr=socket.gethostname(),
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        raised: list[BaseException] = []

        def launch() -> None:
            try:
                elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
            except BaseException as error:
                raised.append(error)

        # Not in the main thread: there torch's launcher would take the signals and grant 30 seconds.
        thread = threading.Thread(target=launch, daemon=True)
        former = {one: signal.signal(one, remember) for one in (signal.SIGTERM, signal.SIGINT)}
        thread.start()
        told = False
        while thread.is_alive():
            thread.join(0.2)
            if stopped and not told:
                told = True
                with contextlib.suppress(RuntimeError):  # the first node's command has ended
                    store.set(STOP, str(stopped[0]))
        for one, handler in former.items():
            signal.signal(one, handler)
    if not raised:
        return
    if not isinstance(raised[0], ChildFailedError):
        raise raised[0]
    code, why = _reason(list(raised[0].failures.values()), node * processes, nodes * processes)
    if nodes > 1:
        with contextlib.suppress(RuntimeError):
            if not store.check([OVER]):
                store.set(OVER, why)
        time.sleep(3 * BEAT)  # the store is the first node's: the others read it
    if stopped and code in (STOPPED, FOLLOWED):
        sys.exit(128 + stopped[0])
    if code == STOPPED:
        sys.exit(code)
    sys.exit(f"{name}: {why}; the last saved state is kept")


def meet(
    host: str, port: int, nodes: int, number: int | None, seconds: float = MEETING
) -> tuple[Any, int, int]:
    """Come together with the launchers of the other nodes: (torch's store, its port, number of this node).

    number: of this node; None: the one at `host` is 0, the others count in the order of their coming.
    Raises InputError when that takes longer than `seconds`.
    """
    from torch.distributed import TCPStore

    patience, store = datetime.timedelta(seconds=seconds), None
    if number == 0 or (number is None and _is_here(host)):
        try:
            store = TCPStore(
                host, port, is_master=True, wait_for_workers=False, multi_tenant=True, timeout=patience
            )
            number = 0
        except RuntimeError as error:
            if number == 0:
                raise InputError(
                    f"runtime.rendezvous: expected a free port of this machine, found {host}:{port}: "
                    f"{explain(error)}; name another"
                ) from None
    if store is None:
        if not _answers(host, port, seconds):  # asked first: TCPStore writes pages when there is no answer
            raise InputError(
                f"runtime.rendezvous: expected the first node's command at {host}:{port}, no answer within "
                f"{seconds:.0f} seconds; start it there, or mend the address"
            )
        store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)
    node = int(store.add("nodes", 1)) if number is None else number
    if node >= nodes:
        raise InputError(
            f"distributed.nodes: expected {nodes} commands at {host}:{port}, this is one more; end the "
            "others or raise nodes"
        )
    store.set(f"node/{node}", socket.gethostname())
    wanted = [f"node/{one}" for one in range(nodes)]
    try:
        store.wait(wanted, patience)
    except RuntimeError:
        came = sum(store.check([one]) for one in wanted)
        raise InputError(
            f"distributed.nodes: expected {nodes} nodes at {host}:{port} within {seconds:.0f} seconds, found "
            f"{came}; start the command on each (srun, or python -m pipeline submit)"
        ) from None
    return store, int(store.port), node


def address(nodes: int, rendezvous: str | None) -> tuple[str, int, int | None]:
    """Host and port (0: any) of the first node, and this node's number where that is known."""
    if nodes == 1:
        return "127.0.0.1", 0, 0
    slurm = "SLURM_NODEID" in os.environ
    number = int(os.environ["SLURM_NODEID"]) if slurm else None
    if rendezvous:
        host, _, port = rendezvous.rpartition(":")
        return host, int(port), number
    if not slurm:
        raise InputError(
            f"runtime.rendezvous: expected host:port of the first of {nodes} nodes, found null outside SLURM"
        )
    from submitit.slurm.slurm import SlurmJobEnvironment

    job = int(os.environ["SLURM_JOB_ID"])
    return SlurmJobEnvironment().hostnames[0], 15000 + job % 15000, number


def _is_here(host: str) -> bool:
    """Whether this machine has the address."""
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    for address in addresses:
        with contextlib.suppress(OSError):
            version = ipaddress.ip_address(str(address)).version
            family = socket.AF_INET6 if version == 6 else socket.AF_INET
            with socket.socket(family) as probe:
                probe.bind((str(address), 0))
                return True
    return False


def _answers(host: str, port: int, seconds: float) -> bool:
    """Whether somebody listens there before the seconds are over."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            socket.create_connection((host, port), timeout=left).close()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False


def _reason(failures: list[Any], first: int, ranks: int) -> tuple[int, str]:
    """Exit code and sentence of the failure that the others followed.

    failures: torch's ProcessFailure of this node's processes; first: rank of its first.
    """

    def order(failure: Any) -> tuple[int, float]:
        late = failure.timestamp - min(one.timestamp for one in failures) > CASCADE
        if failure.exitcode == FOLLOWED or late:
            return 2, failure.timestamp
        if failure.exitcode == -signal.SIGTERM and not _said(failure):  # ended by torch's launcher
            return 3, failure.timestamp
        return int(bool(_trace(failure))), failure.timestamp  # a lost peer looks like a defect of ours

    failure = min(failures, key=order)
    who = f"rank {first + failure.local_rank} of {ranks}"
    if failure.exitcode == FOLLOWED:
        return FOLLOWED, str(_said(failure).get("message", f"{who}: ended since another one had"))
    if failure.exitcode < 0 and not _said(failure):
        cause = ", most likely for want of memory" if failure.exitcode == -signal.SIGKILL else ""
        name = signal.Signals(-failure.exitcode).name
        return failure.exitcode, f"{who}: ended by signal {-failure.exitcode} ({name}){cause}"
    if trace := _trace(failure):
        print(trace, file=sys.stderr)
    return failure.exitcode, f"{who}: {_said(failure).get('message', f'exit code {failure.exitcode}')}"


def _said(failure: Any) -> dict[str, Any]:
    """What the process has left by `record`."""
    data = failure.error_file_data
    said = data.get("message") if isinstance(data, dict) else None
    return said if isinstance(said, dict) else {}


def _trace(failure: Any) -> str:
    return str(_said(failure).get("extraInfo", {}).get("py_callstack", ""))
