"""What PPO and RLVR share: rollouts, advantages, objectives, learner, and their actors."""
