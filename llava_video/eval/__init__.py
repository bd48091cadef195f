"""Evaluation: questions with known answers → records, and scores that say how sure they are."""
