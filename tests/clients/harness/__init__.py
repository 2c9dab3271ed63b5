"""What the scripts of this folder share. Python's standard library only."""
