#!/usr/bin/env bash
# Makes the environment of this study (.venv, once), then runs its notebooks, its tests or JupyterLab. See --help.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
VENV="$ROOT/.venv"

usage() {
    cat <<'HELP'
Reruns the study: executes its notebooks in order and writes every figure and table.

  ./run_all.sh [PROFILE] [options]          run a profile (default: quick)
  ./run_all.sh plan PROFILE [options]       say what to expect of each claim, and the cost in minutes and disk
  ./run_all.sh compute PROFILE [options]    compute its networks and measures without drawing figures
  ./run_all.sh verify PROFILE [options]     compare the run in figures/PROFILE with data/reference/PROFILE
  ./run_all.sh judge FOLDER                 decide the claims again from the tables in figures/PROFILE
  ./run_all.sh train PROFILE FILE [options] train the dense network from scratch and write its weights
  ./run_all.sh lab [options of jupyter lab] open the notebooks
  ./run_all.sh test [options of pytest]     run all tests
Each of them sets the environment up first, if needed.

Profiles
  smoke            embedded images, tiny numbers: only checks that everything works (minutes)
  quick            embedded images, 2 CPU cores, no further download (minutes)
  imagenette       Imagenette and torchvision's ImageNet weights (a GPU)
  imagenette_bvlc  Imagenette and the original BVLC GoogLeNet (CPU cores, with patience)
  imagenet         the full grid on ImageNet-1k, from a folder of yours (GPUs)
  FILE.yaml        a profile of your own; notebooks/profiles/ holds the ones above

Options
  --notebooks LIST   of run: only these, by number: 01,05 or 03-06 or 00,03-06
  --stages LIST      of compute: only these, such as retrained,accuracy
  --keep             of verify: make the run the reference instead
  --set KEY=VALUE    change one number of the profile, KEY dotted; repeat for more
  --device DEVICE    auto (default), cpu or cuda
  --out DIR          write into DIR/figures/PROFILE instead of figures/PROFILE, and keep what was
                     computed in DIR/runs instead of data/runs
  -h, --help         this text

Examples
  ./run_all.sh
  ./run_all.sh quick --notebooks 05-06 --set seed=1
  ./run_all.sh test tests/pruning

The first run installs several GB of packages into .venv, which takes minutes; later runs start in seconds.
Whatever was computed is loaded, not computed again: after an interruption, run the same command again.
Exit status: 0 all done, 1 a notebook failed or verify found a difference, 2 wrong usage, 130 interrupted.
Environment: PYTHON names the Python (>= 3.11) to make .venv from.
HELP
}

say() { printf '%s\n' "$*" >&2; }

# The first Python >= 3.11 that can make an environment. The lock was resolved with 3.11, so that comes first.
find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$name"
            return
        fi
    done
    say "run_all.sh: no Python >= 3.11 with the venv module found (looked for: ${PYTHON:-python3.11 to python3.14, python3, python})."
    say "Install one (Debian and Ubuntu: apt install python3.11 python3.11-venv) or name it: PYTHON=/path/to/python ./run_all.sh"
    return 2
}

# What the installed packages and the installed project depend on; a moved checkout counts as a new one.
packages_fingerprint() {
    { cat "$ROOT/requirements.lock"; printf '%s\n' "$ROOT"; "$VENV/bin/python" -VV 2>&1 || true; } | cksum
}
project_fingerprint() { { cat "$ROOT/pyproject.toml"; packages_fingerprint; } | cksum; }

# Each stage ends by writing its stamp, so an interrupted one leaves none and is done again from its start.
stamped() { [ -f "$VENV/.$1.stamp" ] && [ "$(cat "$VENV/.$1.stamp")" = "$("${1}_fingerprint")" ]; }
stamp() { "${1}_fingerprint" > "$VENV/.$1.stamp"; }

# uv finds Python 3.11, or fetches it.
install_with_uv() {
    uv venv --quiet --python "${PYTHON:-3.11}" "$VENV" &&
        uv pip install --python "$VENV/bin/python" -r "$ROOT/requirements.lock"
}

install_with_pip() {
    local python
    python="$(find_python)"
    "$python" -m venv --clear "$VENV"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off -r "$ROOT/requirements.lock"
}

install_packages() {
    say "Installing the packages of requirements.lock into .venv: several GB, some minutes, once."
    rm -rf "$VENV"
    if command -v uv >/dev/null; then
        install_with_uv && return
        say "uv could not install them (it does not read pip's settings): trying pip."
    fi
    install_with_pip
}

# The lock holds the build backend, so this downloads nothing.
install_project() {
    if "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
        "$VENV/bin/python" -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e "$ROOT"
    else
        uv pip install --quiet --python "$VENV/bin/python" --no-deps --no-build-isolation -e "$ROOT"
    fi
}

# One process at a time, where there is flock: a second one would remove what the first installs.
# The lock is held by this function's subshell alone, not by the run after it.
set_up() (
    if stamped packages && stamped project; then return; fi
    if command -v flock >/dev/null; then
        exec 9> "$ROOT/.setup.lock"
        flock -n 9 || { say "Waiting for another run that sets up .venv."; flock 9; }
    fi
    for stage in packages project; do
        stamped "$stage" && continue
        "install_$stage"
        stamp "$stage"
    done
)

# The kernel python3 is .venv's own, whatever else this machine has installed.
unset JUPYTER_PATH
export JUPYTER_PREFER_ENV_PATH=1
if [ "${1:-}" = test ]; then
    shift
    set_up
    cd "$ROOT"
    # A file of tests per process: two threads of one process help each other less than two processes.
    OMP_NUM_THREADS=1 exec "$VENV/bin/python" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile "$@"
fi
if [ "${1:-}" = lab ]; then
    shift
    set_up
    exec "$VENV/bin/python" -m jupyter lab --notebook-dir "$ROOT/notebooks" "$@"
fi
for argument in "$@"; do
    case "$argument" in -h | --help) usage; exit 0 ;; esac
done
set_up
case "${1:-}" in
    run | plan | compute | verify | judge | train) ;;
    *) set -- run "$@" ;;
esac
exec "$VENV/bin/python" -m prunelens "$@"
