"""What a trained agent can do: protocols, records, curves and reports.

Begin with `evaluator`, which lets a policy act by a `protocol`; `pipeline` has the steps of a whole
evaluation, and `plans` what a command line asks for. `compare` is about runs, not about what agents
do.
"""

from typing import TYPE_CHECKING

from relic.lazy import names_of

if TYPE_CHECKING:
    from relic.evaluation.few_shot import ProbeResult, probe

__all__ = ["ProbeResult", "probe"]

__getattr__ = names_of(__name__, dict.fromkeys(__all__, "relic.evaluation.few_shot"))
