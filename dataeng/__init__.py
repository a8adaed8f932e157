"""dataeng: from crawls and files to clean, deduplicated, tokenized corpora in domains, and mixtures of them."""

__version__ = "0.1.0"
