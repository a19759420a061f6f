"""``make doctor``: what keeps a study from running, or may, and what to do about it.

Reads only: it starts nothing, converts nothing, waits for nobody, and works where other commands
stop because something is broken.
"""
