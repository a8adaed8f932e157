"""Devices and ranks, and a model spread over them."""
