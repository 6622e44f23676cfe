"""Evaluation on a person's own conversations: replies made anew, whole conversations carried out, smoke cases."""
