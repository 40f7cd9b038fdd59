"""From an observation to a token; `encoders` is where to begin."""
