"""Floor 0: what every room stands on. Nothing here is public."""
