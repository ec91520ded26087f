"""Properties are searched without a clock, in whichever file they stand."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no defect: what is too slow is found by the benchmarks. Here, so that it counts before any file of
# properties is imported: `settings` takes what it does not name from the profile of that moment.
settings.register_profile("kasmos", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kasmos")
