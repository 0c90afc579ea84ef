"""PostgreSQL's programs out of the very image that the server runs from.

A host need not have PostgreSQL of the server's major version, nor a distribution new enough for it:
programs, libraries and their loader come from the image, and are called in place. Works for images
built on Debian and on Alpine.
"""

from __future__ import annotations

from pathlib import Path

from lifeboat.core.errors import PermanentError

_ABOUT = "ABOUT"
_ELF = "elf"  # beside `bin`, where a program looks for its own kind

COLLECT = """
program=$(command -v pg_basebackup || ls /usr/lib/postgresql/*/bin/pg_basebackup | tail -n 1)
bin=$(dirname "$(readlink -f "$program")")
share=$("$bin/pg_config" --sharedir)
library=$("$bin/pg_config" --pkglibdir)
cd "$bin"
programs=""
for name in postgres pg_basebackup pg_verifybackup pg_receivewal pg_waldump pg_controldata \
            pg_amcheck; do
  programs="$programs $bin/$name"
done
extensions=$(ls "$library"/*.so | grep -v llvmjit)
needed=$(ldd $programs $extensions 2>/dev/null | sed -n 's|.*[[:space:]]\\(/[^ ]*\\) (.*|\\1|p' \
         | sort -u)
loader=$(echo "$needed" | grep -E '/ld-(linux|musl)' | head -n 1)
mkdir {out}
cp -L --parents $programs $extensions $needed {out}
mkdir -p "{out}$share"
cp -RL "$share"/. "{out}$share"
directories=$(for file in $needed; do dirname "$file"; done | sort -u | tr '\\n' ' ')
printf '%s\\n' "$bin" "$loader" "$directories" > {out}/ABOUT
"""
"""Run in the image with a shell: leaves the programs and all that they need below `{out}`."""

_WRAPPER = """\
#!/bin/sh
here=$(CDPATH= cd -P -- "${{0%/*}}" && pwd)
root=${{here%{bin}}}
exec "$root{loader}" --library-path "{path}" --argv0 "$here/{name}" "{elf}/{name}" "$@"
"""


def wrap(root: Path) -> Path:
    """Make what COLLECT left in `root` callable, and give the directory of the programs.

    The tree may be moved as a whole. Each program is a script that lets the image's own loader find
    the image's own libraries; a program that looks for another one beside it finds that script.
    """
    try:
        inside, loader, directories = (root / _ABOUT).read_text().splitlines()
    except (OSError, ValueError) as error:
        raise PermanentError(
            f"Taking PostgreSQL's programs out of its image: {root} is not what was expected.",
            hint="Set database.bin_directory to programs of this host instead.",
        ) from error
    place = root / inside.lstrip("/")
    elf = place.with_name(_ELF)
    place.rename(elf)
    place.mkdir()
    beside = inside.rpartition("/")[0]
    for program in sorted(elf.iterdir()):
        script = place / program.name
        script.write_text(
            _WRAPPER.format(
                bin=inside,
                loader=loader,
                path=":".join(f"$root{directory}" for directory in directories.split()),
                name=program.name,
                elf=f"$root{beside}/{_ELF}",
            )
        )
        script.chmod(0o755)
    return place


def directory_in(root: Path) -> Path:
    """The directory of the programs in a tree that was wrapped."""
    return root / (root / _ABOUT).read_text().splitlines()[0].lstrip("/")
