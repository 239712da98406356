"""``HYPOTHESIS_PROFILE=thorough pytest tests/properties`` tries many more examples.

A profile's ``max_examples`` are per cent of what a property tries by default. They are not loaded
for all tests, only taken by ``strategies.examples``.
"""

from hypothesis import HealthCheck, settings

# Without a limit of time: other work on the machine is no fault of the code.
COMMON = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

settings.register_profile("quick", COMMON, max_examples=60, derandomize=True)
settings.register_profile("thorough", COMMON, max_examples=3000, derandomize=False)
