"""Prefect itself: what its server declares, who runs it, how its own database survives."""
