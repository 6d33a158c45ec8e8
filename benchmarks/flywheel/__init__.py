"""Labels from simulated users whose taste is known: what the corrections of `hardmine pairs` gain, and how it scales."""
