"""STREAM-Rec and TIGER inside the stock RecBole."""
