"""`docker-compose up -d` of the platform under `$SERVER`: its services start side by side.

    python -m bench.start_services [SERVICE...]

As Lifeboat starts them: whoever recovered the server by hand is not slower for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from lifeboat.tools.stacks import ProcessStack
from staging.site import CRITICAL


def main() -> None:
    config = Path(os.environ["SERVER"]) / "config" / "supervisord.conf"
    ProcessStack(config).up(sys.argv[1:] or CRITICAL)


if __name__ == "__main__":
    main()
