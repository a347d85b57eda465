"""Run independent work: here, or on a CPU in processes of one thread each.

A network's convs are too small to keep two threads busy, and their sums depend on the number of threads. One thread for
each network wastes nothing, and gives the same numbers on any number of cores.
"""

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod
from typing import Any

from tqdm import tqdm

# A process that is forked, or killed, while somebody holds tqdm's lock must not hang itself or others.
tqdm.monitor_interval = 0
tqdm.set_lock(threading.RLock())

Work = Callable[[Any], object]
_work: Work  # what a forked process has to do with each unit that it gets
_stop: Any  # an event of all processes: begin nothing more
_forked = False


def cores() -> int:
    """How many processes compute at once on a CPU: its cores, or OMP_NUM_THREADS where that is set; 1 inside one."""
    if _forked:
        return 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else len(os.sched_getaffinity(0))


def run(work: Work, units: Sequence[Any], label: str, processes: int) -> None:
    """Call ``work`` with every unit, ``processes`` at once; what it returns is lost, what it stores is there.

    The processes are forked, so that ``work`` sees all that is in memory already; units are pickled. Where it raises,
    no further unit is begun, what others compute is waited for, and the exception goes on to the caller.

    Raises:
        RuntimeError: a process was killed.
    """
    processes = min(processes, len(units))
    with tqdm(total=len(units), desc=label, mininterval=5, leave=False) as bar:
        if processes < 2:
            for unit in units:
                work(unit)
                bar.update()
            return
        context = multiprocessing.get_context("fork")
        stop = context.Event()
        with ProcessPoolExecutor(processes, context, _begin, (work, stop)) as pool:
            try:
                for future in as_completed([pool.submit(_do, unit) for unit in units]):
                    _finish(future, label, processes)
                    bar.update()
            except BaseException:
                stop.set()  # the pool hands out more units than it has processes
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


def _begin(work: Work, stop: Any) -> None:
    global _work, _stop, _forked
    _work, _stop, _forked = work, stop, True
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End an orphan, whose parent was killed: it would compute on beside the next run."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _do(unit: Any) -> None:
    if _stop.is_set():
        return
    try:
        _work(unit)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some libraries' exceptions would break the pool
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def prepare(device: str) -> None:
    """Set PyTorch up for repeatable numbers in this process and those that are forked from it.

    device: "cpu" or "cuda...".
    """
    import torch
    from threadpoolctl import threadpool_limits

    # Weights that shrink towards zero become denormal numbers, on which some CPUs are a hundred times slower.
    torch.set_flush_denormal(True)
    # TensorFloat-32 would tie or swap what ranks images, and make results depend on the batch size.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cpu":
        torch.set_num_threads(1)
        threadpool_limits(1, "blas")
