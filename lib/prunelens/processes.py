"""Several artefacts at once on a CPU: in processes of one thread each.

A network's convs are too small to keep two threads busy, and their sums depend on the number of threads. One thread for
each network wastes nothing, and gives the same numbers on any number of cores.
"""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod
from typing import Any

import torch
from tqdm import tqdm

count = torch.get_num_threads()  # of processes: as many as PyTorch would have threads, which OMP_NUM_THREADS sets

# A process that is forked, or killed, while somebody holds tqdm's lock must not hang itself or others.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())

_work: Callable[[Any], object]  # what a forked process has to do with each item that it gets
_stop: Any  # an event of all processes: begin nothing more


def run(work: Callable[[Any], object], items: Iterable[Any], label: str, device: torch.device) -> None:
    """Call ``work`` with every item, `count` at once on a CPU; what it returns is lost, what it stores is there.

    The processes are forked, so that ``work`` sees all that is in memory already; items are pickled. Where it raises,
    no further item is begun, what others compute is waited for, and the exception goes on to the caller. A machine with
    a GPU works on one item at a time, whatever the device: PyTorch has no gradients in processes forked there.

    Raises:
        RuntimeError: a process was killed.
    """
    items = list(items)
    processes = min(1 if device.type != "cpu" or torch.cuda.is_available() else count, len(items))
    with tqdm(total=len(items), desc=label, mininterval=5, leave=False) as bar:
        if processes < 2:
            for item in items:
                work(item)
                bar.update()
            return
        context = multiprocessing.get_context("fork")
        stop = context.Event()
        with ProcessPoolExecutor(processes, context, _begin, (work, stop)) as pool:
            try:
                for future in as_completed([pool.submit(_do, item) for item in items]):
                    _finish(future, label, processes)
                    bar.update()
            except BaseException:
                stop.set()  # the pool hands out more items than it has processes
                pool.shutdown(cancel_futures=True)
                raise


def _finish(future: Future, label: str, processes: int) -> None:
    try:
        future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"{label}: one of {processes} processes was killed (out of memory?); what was finished is kept. "
            "OMP_NUM_THREADS=1 needs the least memory"
        ) from error


def _begin(work: Callable[[Any], object], stop: Any) -> None:
    global _work, _stop, count
    _work, _stop, count = work, stop, 1
    torch.set_num_threads(1)
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """An orphan, whose parent was killed, would compute on beside the next run."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _do(item: Any) -> None:
    if _stop.is_set():
        return
    try:
        _work(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some libraries' exceptions would break the pool
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
