"""Many videos: items in, records out, through crashes and interruptions, on one machine or many."""
