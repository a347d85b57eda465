"""`python -m prunelens`: the command line. An interruption, at any moment, ends it with one line and status 130."""

import os
import signal
import sys
from typing import NoReturn

PROCESS = os.getpid()  # processes forked from it say nothing


def stop(*_: object) -> NoReturn:
    """End at once: nothing that is half written is ever taken for whole."""
    if os.getpid() == PROCESS:
        line = "prunelens: interrupted; to go on (what was computed is loaded), run the same command again\n"
        os.write(2, f"{chr(10) if os.isatty(2) else ''}{line}".encode())
    os._exit(130)


def main() -> int:
    """Run the command line; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    from prunelens.run import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
