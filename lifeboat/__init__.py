"""Lifeboat: disaster recovery for platforms that run on Docker Compose."""

__version__ = "0.1.0"
