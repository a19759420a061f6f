"""What a run will compute, what is there already, and what that takes: counted, never guessed."""
