"""Rounds: fit, select, finetune on what is selected, fit again."""
