"""The demo: a generated catalogue, a small model, and the configuration that runs on them."""
