"""Verifiers: from a problem and a completion to a verdict, with code run in a sandbox."""
