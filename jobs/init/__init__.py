"""`hardmine init`: looks at the user's tables and this machine, and writes a first configuration."""
