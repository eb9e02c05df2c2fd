"""Problem generators with checkable answers, the small world of facts, and the true preference."""
