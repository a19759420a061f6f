"""What several rooms share and none owns."""
