"""What a restored point is asked: whether it is what it should be, and works."""

from __future__ import annotations
