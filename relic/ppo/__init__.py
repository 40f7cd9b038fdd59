"""How the agent learns: rollouts, partial updates, PPO."""
