"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How fast examples are made depends on what else the machine is doing, and is no defect.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")
