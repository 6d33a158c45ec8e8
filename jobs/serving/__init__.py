"""From a kept model to traffic: export, search, live comparison, refresh."""
