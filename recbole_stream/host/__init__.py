"""The one room that knows RecBole."""
