"""Tools of MCP servers as functions: the driver, and the list of what a server offers."""
