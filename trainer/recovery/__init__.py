"""What keeps a run alive: checkpoints, spikes, incidents, the lock of its folder."""
