"""A small MCP server, for tools_through_mcp.py: it knows a family."""

from mcp.server import MCPServer

FAMILY = {("Maud", "friend"): "Hugh", ("Hugh", "sister"): "Edith", ("Edith", "teacher"): "Norbert"}
server = MCPServer("family")


@server.tool()
def lookup(name: str, relation: str) -> str:
    """Who somebody's friend, sister or teacher is."""
    return FAMILY.get((name, relation), "unknown")


if __name__ == "__main__":
    server.run()
