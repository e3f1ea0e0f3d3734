"""Sentiment models: how one is kept as text, measured and described; and the one that ships, in `film_reviews/`."""
