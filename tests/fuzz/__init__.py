"""Damaged inputs by the thousand: real files and profiles, changed at random.

``python -m tests.fuzz.readers`` tries as many as wanted; the suite tries a few, and generated ones.
"""
