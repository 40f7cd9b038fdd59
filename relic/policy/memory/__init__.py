"""What carries a trial from step to step; `sequence_model` is the interface."""
