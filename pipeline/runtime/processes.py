"""The same work on many items in processes of their own, none of which outlives the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

from pipeline.runtime.errors import InputError
from pipeline.runtime.progress import progress

T = TypeVar("T")
_function: Callable[[Any], object]  # of this process, if `run_all` started it


def run_all(
    function: Callable[[T], object], items: Sequence[T], workers: int, description: str, unit: str
) -> None:
    """Call `function` on every item, in this process (workers: 0) or in `workers` others, in any order.

    function and items must be picklable. An error or a signal ends it: what is at work is finished, what
    waits is not begun. Raises InputError when a process was killed.
    """
    if not workers or len(items) < 2:
        for item in progress(items, description=description, unit=unit):
            function(item)
        return
    # Spawned: a fork would copy the locks of threads that do not exist in it.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(items)), mp_context=spawn, initializer=_start, initargs=(function,)
    ) as pool:
        futures = [pool.submit(_call, item) for item in items]
        try:
            for future in progress(
                as_completed(futures), total=len(items), description=description, unit=unit
            ):
                future.result()
        except BrokenProcessPool:
            raise InputError(
                f"{description}: one of {workers} processes was killed, most likely for want of memory; "
                "lower runtime.workers and run again, what is done is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(function: Callable[[Any], object]) -> None:
    """Ctrl-C is the starter's business; and its death, even by SIGKILL, is this process's end."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    starter = multiprocessing.parent_process()

    def follow() -> None:
        if starter is not None:
            wait([starter.sentinel])
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _call(item: Any) -> None:
    _function(item)
