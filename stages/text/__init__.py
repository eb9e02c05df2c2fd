"""Functions over documents: reading crawls, extraction, filters, dedup, privacy, token shards.

Nothing here knows a stage, a recipe or Ray.
"""
