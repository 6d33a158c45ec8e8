"""The run's tables: how their parts are written and read, and some rows of them."""
