"""The ticket searches that NeTS is judged against."""
