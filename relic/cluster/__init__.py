"""The same training as a job of Ray RLlib (new API stack, Ray 2.60).

Only this package imports Ray.
"""

import os

from relic.extras import install_command

# Ray's own 30 seconds are too short for the daemons of a machine that is busy.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")  # read when ray is imported
os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")

try:
    import ray.rllib  # noqa: F401
except ImportError:
    raise ImportError(
        f"cluster: needs the package ray. Install it with: {install_command('cluster')}"
    ) from None

from relic.cluster.algorithm import ReLIC
from relic.cluster.config import ReLICConfig

__all__ = ["ReLIC", "ReLICConfig"]
