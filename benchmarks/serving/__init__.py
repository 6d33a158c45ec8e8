"""How fast an export answers over HTTP."""
