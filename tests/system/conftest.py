"""One staging platform for the tests that need a whole one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from staging import processes
from staging.site import Site

STAGING_SCALE = 0.1


@pytest.fixture(scope="session")
def lifeboat() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call it with lifeboat.yaml and the words of a command; variables as keywords."""

    def run(config: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from lifeboat.cli import main; main()", *words],
            env={**os.environ, **environment, "LIFEBOAT_CONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=180,
        )

    return run


@pytest.fixture(scope="session")
def _staging_site_and_copy(tmp_path_factory):
    root = tmp_path_factory.mktemp("staging") / "site"
    site, untouched = Site(root), root.parent / "untouched"
    site.create(scale=STAGING_SCALE)
    shutil.copytree(site.server, untouched, symlinks=True)
    yield site, untouched
    site.destroy()
    shutil.rmtree(untouched)


@pytest.fixture(scope="module")
def staging_site(_staging_site_and_copy) -> Site:
    """A running staging platform, as it was made, whatever an earlier module did to it.

    It is shared: mark the module with `pytest.mark.xdist_group("staging")`. S3 keeps what an
    earlier module put there; take a bucket or prefix of your own.
    """
    site, untouched = _staging_site_and_copy
    reset_server(site, untouched)
    site.start()
    yield site
    processes.kill_all(site.server)


@pytest.fixture
def reset_staging(_staging_site_and_copy):
    """Call it to set the server back to how it was made and start it again."""
    site, untouched = _staging_site_and_copy

    def reset(*, start: bool = True) -> None:
        reset_server(site, untouched)
        if start:
            site.start()

    return reset


def reset_server(site: Site, untouched: Path) -> None:
    processes.kill_all(site.server)
    processes.free_shared_memory(site.database_directory)
    shutil.rmtree(site.server, ignore_errors=True)
    shutil.copytree(untouched, site.server, symlinks=True)
