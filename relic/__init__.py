"""In-context reinforcement learning of embodied agents."""

__version__ = "0.1.0"
