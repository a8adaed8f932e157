"""The decoder, its sizes, and the loss of its last layer."""
