"""A large data set from its files to negatives on one machine: time, memory and requests of every stage."""
