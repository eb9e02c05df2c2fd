"""Smaller models: distill (fewer layers, taught by a bigger model) and quantize (fewer bits)."""
