"""The command line: python -m prunelens run | plan | compute | verify | judge | train.

Exit status: 0 all done; 1 a notebook or a computation failed, or a run differs from its reference; 2 wrong usage
(nothing was computed); 130 interrupted.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunelens import paths
from prunelens.run import checks
from prunelens.run.checks import Request, UsageError
from prunelens.run.messages import display, one_line, say


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; returns the exit status."""
    found = _parser().parse_args(arguments)
    _find_modules_of_caller()
    try:
        return found.command(found)
    except UsageError as error:
        say(f"prunelens: {error}", sys.stderr)
        return 2
    # A full disk, a killed process, a training that diverges.
    except (OSError, RuntimeError, ValueError, FloatingPointError) as error:
        say(f"prunelens: FAILED: {one_line(error)}", sys.stderr)
        return 1
    except Exception as error:  # a user's part can fail in any way on real data: where it did helps its author
        traceback.print_exc()
        say(f"prunelens: FAILED: {type(error).__name__}: {one_line(error)}", sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunelens", description="What pruning changes in a network's units.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    quick = {"nargs": "?", "default": "quick", "help": "a profile's name or YAML file (default: quick)"}
    add = _add_command(commands, "run", _run, "execute the notebooks: all figures and tables of a profile", **quick)
    add.add_argument("--notebooks", default="", metavar="LIST", help="only these: 01,05 or 03-06 (default: all)")
    told = "compute a profile's networks and measures without drawing figures"
    add = _add_command(commands, "compute", _compute, told)
    add.add_argument("--stages", metavar="LIST", help="only these, such as retrained,accuracy (default: all)")
    _add_command(commands, "plan", _plan, "what to expect of each claim, and what a profile costs in minutes and disk")
    add = _add_command(commands, "verify", _verify, "compare a run with the reference tables of its profile")
    add.add_argument("--keep", action="store_true", help="make this run the reference instead")
    add = commands.add_parser("judge", help="decide the claims again from the tables that a run has left")
    add.set_defaults(command=_judge)
    add.add_argument("folder", type=Path, help="the run's results, such as figures/quick")
    add = _add_command(commands, "train", _train, "train a profile's dense network from scratch (network.scratch)")
    add.add_argument("file", type=Path, help="safetensors file to write the weights to, in half precision")
    return parser


def _add_command(
    commands: Any, name: str, command: Callable[[argparse.Namespace], int], told: str, **profile: Any
) -> argparse.ArgumentParser:
    """Add a command that takes a profile and the options that all such commands have."""
    parser = commands.add_parser(name, help=told)
    parser.set_defaults(command=command)
    parser.add_argument("profile", **{"help": "a profile's name or YAML file", **profile})
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="change a key of the profile"
    )
    parser.add_argument("--device", default="auto", help="auto (default: a GPU where there is one), cpu or cuda")
    parser.add_argument("--out", default="", metavar="DIR", help="hold figures/ and runs/ here (default: the project)")
    return parser


def _find_modules_of_caller() -> None:
    """Let a profile name modules in the caller's folder: here and in kernels, which start in the project's folder."""
    here = os.getcwd()
    sys.path[:] = [here, *(path for path in sys.path if path not in ("", here))]
    before = [os.path.abspath(path) for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *(path for path in before if path != here)])


def _request(found: argparse.Namespace) -> Request:
    """What was asked for, with paths that are relative to the caller's folder made absolute: kernels run elsewhere."""
    is_file = found.profile.endswith((".yaml", ".yml"))
    profile = str(Path(found.profile).resolve()) if is_file else found.profile
    return Request(profile, found.overrides, found.device, str(Path(found.out).resolve()) if found.out else "")


def _run(found: argparse.Namespace) -> int:
    request = _request(found)
    notebooks = checks.notebooks(found.notebooks, request.parameters)
    folder = checks.study(request).folder
    _make(folder / "notebooks")  # the last of the checks: a request that is wrong elsewhere leaves no folder
    from prunelens.run import series  # imports papermill

    return series.run(notebooks, folder, request)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} can't be made: {error.strerror} (see --out)") from error


def _compute(found: argparse.Namespace) -> int:
    stages = checks.stages(found.stages)
    checks.study(_request(found)).compute(stages)
    return 0


def _plan(found: argparse.Namespace) -> int:
    from prunelens.run.plan import plan

    return plan(_request(found))


def _verify(found: argparse.Namespace) -> int:
    from prunelens import profile
    from prunelens.run import verify

    request = _request(found)
    try:
        wanted = profile.load(request.profile, request.overrides)
        folder = paths.figures(request.out) / wanted.name
        if not found.keep:
            status = verify.verify(folder, wanted)
            _say_origins(request)
            return status
        say(f"prunelens: {display(folder)} is now the reference: {display(verify.keep(folder, wanted))}")
        return 0
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"verify {request.profile}: {one_line(error)}") from error


def _say_origins(request: Request) -> None:
    """Say what code the results are from, where they are at hand: tables can be compared without."""
    from prunelens.run import verify
    from prunelens.study import Study

    try:
        say(f"  {verify.origins(Study(*request))}")
    except (OSError, ValueError, ImportError) as error:
        say(f"  results: not at hand ({one_line(error)})")


def _judge(found: argparse.Namespace) -> int:
    from prunelens.analysis.verdicts import judge_folder

    try:
        verdicts = judge_folder(found.folder)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"judge {found.folder}: {one_line(error)}") from error
    for row in verdicts.itertuples():
        say("\n    ".join(filter(None, [f"{row.claim} {row.verdict}: {row.statement}", row.estimate, row.why])))
    return 0


def _train(found: argparse.Namespace) -> int:
    """Write the weights, and FILE.json: profile, accuracy of every epoch and of what was written, versions."""
    import numpy as np

    from prunelens.store import atomic, origin, write_arrays, write_text

    request = _request(found)
    if found.file.is_dir():
        raise UsageError(f"train: {found.file} is a folder, expected a file to write")
    _make(found.file.parent)
    study = checks.study(request._replace(overrides=[*request.overrides, "network.weights=scratch"]))
    arrays = study.pipeline.get("scratch")
    halved = {
        name.removeprefix("weight/"): array.astype(np.float16) if array.dtype == np.float32 else array
        for name, array in arrays.items()
        if name.startswith("weight/")
    }
    with atomic(found.file) as draft:
        write_arrays(halved, draft)
    written = checks.study(request._replace(overrides=[*request.overrides, f"network.weights={found.file.resolve()}"]))
    top1 = written.pipeline.get("accuracy", written.pipeline.dense)["network"]["top1"]
    epochs = {name.removeprefix("epoch/"): a.tolist() for name, a in arrays.items() if name.startswith("epoch/")}
    record = {"profile": study.profile.model_dump(), "top1": top1, "epochs": epochs, **origin()}
    write_text(found.file.with_name(f"{found.file.name}.json"), json.dumps(record, indent=2))
    say(f"prunelens: {found.file}: Top-1 {top1:.3f} in half precision, {epochs['top1'][-1]:.3f} after the last epoch")
    return 0
