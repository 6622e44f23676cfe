"""The HTTP door: OpenAI's API, the box's own API and its page, operations, and who may come in."""
