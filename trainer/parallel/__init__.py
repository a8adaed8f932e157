"""Ranks, and a model spread over them."""
