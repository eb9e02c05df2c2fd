"""What runs things: artifacts, storage, Ray sessions, training launches, actor pools, jobs, meters.

Imports ray, never torch at import time, and knows nothing of models or stages.
"""
