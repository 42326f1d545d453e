"""Models of other papers, which stand in the same table: shells around the networks of ``model.rivals``."""
