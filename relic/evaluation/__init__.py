"""What a trained agent can do: protocols, records, curves and reports."""

from relic.evaluation.probe import ProbeResult, probe

__all__ = ["ProbeResult", "probe"]
