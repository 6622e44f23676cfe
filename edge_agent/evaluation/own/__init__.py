"""Cases that a person writes: made, run, kept, summed up, and what they say of a model's confidence."""
