"""How training runs: the parallel shape, DeepSpeed, checkpoints, journal, TRL's trainers."""
