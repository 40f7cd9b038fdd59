"""The trial contract, which `vector` holds, and its checker, `checker`.

Environments that others made meet it by `trials` (any Gymnasium environment) or `process_env` (any
simulator, in processes of its own).
"""
