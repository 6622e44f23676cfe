"""Conversations in the forms that others keep them in: one file for each, all to and from `finetune.data.rows.Row`."""
