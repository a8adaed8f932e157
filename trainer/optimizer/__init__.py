"""Optimizers, and the ways of learning rate and batch size."""
