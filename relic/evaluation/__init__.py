"""What a trained agent can do: protocols, records, curves and reports.

Begin with `evaluator`, which lets a policy act by a `protocol`; `pipeline` has the steps of a whole
evaluation, and `cli` its command line. `compare` is about runs, not about what agents do.
"""

from relic.evaluation.probe import ProbeResult, probe

__all__ = ["ProbeResult", "probe"]
