"""The MCP door. mcp_door.py alone knows the SDK."""
