"""What a rank does whatever it trains: it starts, knows what to load, and makes its passes."""
