"""Set up what Lifeboat needs: a virtual environment from requirements.lock, and a restic.

Run by every target of the Makefile. When all is there it only looks, in a fraction of a second;
otherwise it says first what is missing that it cannot bring, and stops before anything is
touched. An environment that was not finished has no mark, and is built anew.

Standard library only, and nothing that an old Python could not parse: it has to tell such a
Python's owner what to install.
"""

import sys

OLDEST, NEWEST = (3, 11), (3, 14)  # as requires-python in pyproject.toml


def choose_python():
    """Go on under a Python that will do: this one, or else one of those on PATH."""
    import os
    import shutil
    import subprocess

    base = getattr(sys, "_base_executable", sys.executable)
    if sys.prefix != sys.base_prefix and os.path.exists(base):
        # Started from a virtual environment, perhaps the very one that is to be built.
        os.execv(base, [base] + sys.argv)
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        python = shutil.which(f"python3.{minor}")
        if python and subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(python, [python] + sys.argv)
    oldest, newest, this = (
        ".".join(map(str, version)) for version in (OLDEST, NEWEST, sys.version_info[:2])
    )
    sys.exit(
        "Cannot set up Lifeboat.\n"
        f"It needs Python {oldest} to {newest}; this is {this} and no other is on PATH.\n"
        "Install one (Debian 12 and newer: apt-get install python3 python3-venv), "
        "or name yours: make PYTHON=/path/to/python3.11 ..."
    )


if __name__ == "__main__":
    choose_python()
    import setup_steps

    sys.exit(setup_steps.main())
