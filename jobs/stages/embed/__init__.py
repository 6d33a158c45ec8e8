"""Vectors that come from elsewhere: of other runs on the same data, of the guide of training."""
