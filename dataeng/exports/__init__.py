"""Packs as the training libraries of others read them: one module for each format, and `export` that runs them."""
