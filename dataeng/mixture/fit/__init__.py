"""Weights fitted to proxy runs: many small models, each trained on another mixture, and their losses."""
