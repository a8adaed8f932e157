"""How losses of domains become weights, and weights multipliers and shares of rows."""
