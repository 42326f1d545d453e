"""Networks of the rivals: what other papers rank by."""
