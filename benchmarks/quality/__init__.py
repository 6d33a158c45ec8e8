"""Where mined negatives help, on real data."""
