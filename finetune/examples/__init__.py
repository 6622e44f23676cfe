"""Small datasets with their toolsets, and what carries these out."""
