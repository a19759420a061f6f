"""What happens without a hand: sensors, schedules, and what tells people that something failed."""
