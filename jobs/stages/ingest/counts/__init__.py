"""What the counts of the data say before anything is trained: settings that do not fit, doubts, a forecast."""
