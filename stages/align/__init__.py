"""Alignment: sft, reward and dpo through TRL, ppo through our own loop."""
