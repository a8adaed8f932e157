"""Hugging Face's files, in and out."""
