"""What training shows while it runs: geometry of the loss, JSON lines, trackers."""
