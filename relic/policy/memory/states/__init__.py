"""Memories whose state has one size, however long the trial; `fixed_state` is what they share."""
