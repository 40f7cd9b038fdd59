"""What a trained agent can do: protocols, records, curves and reports."""
