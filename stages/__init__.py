"""The pipeline: a door (cli, pipeline, recipe), stages that meet only through artifacts, the rest."""
