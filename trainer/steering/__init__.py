"""How losses of domains become weights, and weights the objective and the shares of rows."""
