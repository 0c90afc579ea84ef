"""Write requirements.lock: every package with its version and the hashes of its files.

One lock for Linux on x86_64 and aarch64 and for macOS on Apple silicon, Python 3.11 to 3.14. It
names no index: where packages come from is for whoever installs them to configure. uv resolves;
it is installed for this alone, into a folder that is removed again.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", directory, "uv>=0.9"],
            check=True,
        )
        new = Path(directory, LOCK.name)
        new.write_text(LOCK.read_text() if LOCK.exists() else "")
        subprocess.run(
            [
                Path(directory, "bin", "uv"),
                *("pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
                *("--all-extras", "--generate-hashes", "--only-binary", ":all:"),
                *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
                *("--output-file", new, *sys.argv[1:], "pyproject.toml"),
            ],
            check=True,
            cwd=ROOT,
        )
        text = new.read_text()
    if address := re.search(r"\S*(?:://|--index|--find-links)\S*", text):
        raise SystemExit(f"The new lock would name an address ({address[0]}); it was not written.")
    LOCK.write_text(text)


if __name__ == "__main__":
    main()
