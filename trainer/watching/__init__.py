"""What is measured of a run, kept, shown and reported."""
