"""Held-out losses, during a run and after it; continuations."""
