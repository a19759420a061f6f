"""Files that land while the study lives: watched, judged, and admitted to their source."""
