"""What the agent is: encoders, sequence models with their caches, heads."""
