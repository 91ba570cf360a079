"""Quality of SubNets against dense, over held-out prompts and seeds."""
