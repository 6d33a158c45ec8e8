"""One tree of settings, read from TOML and checked; imports no torch, ray or faiss."""
