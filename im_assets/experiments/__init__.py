"""What a trial is: a set of examples, a finetune on it, and what is measured of it."""
