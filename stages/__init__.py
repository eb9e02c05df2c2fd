"""The pipeline: a door, stages that meet only through artifacts, and what stages share."""
