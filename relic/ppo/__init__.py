"""How the agent learns: rollouts, partial updates, PPO; `loop` is where to begin."""
