"""``make new-study``: looks at a user's files and proposes a profile, with all that it assumed."""
