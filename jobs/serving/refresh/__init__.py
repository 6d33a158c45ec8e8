"""What a schedule calls: is there new data, is training on it worth it, and what is served from then on."""
