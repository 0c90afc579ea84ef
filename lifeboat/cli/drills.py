"""Commands around the staging platform: start it, break it, and the drill."""

from __future__ import annotations
