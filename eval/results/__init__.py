"""What the results look like beside the relevant items: how varied they are, how scores spread, what metadata gives away."""
