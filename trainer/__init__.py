"""trainer: reads a mixture manifest, trains a decoder on it, and reports and steers the loss of every domain.

``cli`` → ``config`` (what to do) → ``loop`` (doing it, in a straight line), which uses ``data`` and ``sampler`` (rows
of tokens), ``model``, ``loss`` (per-domain losses and weights on them), ``optim``, ``schedule``, ``checkpoint``,
``monitor`` (metrics files) and ``progress`` (what a person sees).
"""
