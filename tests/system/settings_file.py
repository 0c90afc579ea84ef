"""Changes single settings in a lifeboat.yaml, whatever style its sections are written in."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

# What every module needs that verifies a platform more than a few times.
QUICK_CHECKS = {
    "checks.window_seconds": 0.5,
    "checks.containers_running": {"settle_seconds": 0.2},
}


def change(file: Path, changes: dict[str, object], to: Path | None = None) -> None:
    """Set `{"section.key": value}`; sections that are not there are made. `to`: leave `file` be."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1000
    document = yaml.load(file.read_text(encoding="utf-8"))
    for name, value in changes.items():
        *sections, key = name.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    with (to or file).open("w", encoding="utf-8") as out:
        yaml.dump(document, out)
