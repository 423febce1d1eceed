"""The shipped models and their cards: what is known of each, and how it was measured."""
