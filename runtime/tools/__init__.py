"""Tools that a model calls while it reasons: typed Python functions, and the tools of MCP servers.

from runtime.tools import McpServer, tool

@tool(timeout=5)
def lookup(name: str, relation: str) -> str:
    "Who somebody's friend, sister or teacher is."
    return FAMILY[name][relation]

with McpServer("uvx", ["mcp-server-time"]) as clock:
    run = engine.reason("...", tools=[lookup, *clock.tools])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from runtime.tools.calling import Tool, ToolCall, ToolResult, answer, dumps
from runtime.tools.function import tool, tools_of

if TYPE_CHECKING:
    from runtime.tools.mcp import McpServer

__all__ = ["McpServer", "Tool", "ToolCall", "ToolResult", "answer", "dumps", "tool", "tools_of"]


def __getattr__(name: str) -> object:
    """The `mcp` library takes a second to load: it waits until somebody has a server."""
    if name != "McpServer":
        raise AttributeError(f"module 'runtime.tools' has no attribute '{name}'")
    return getattr(import_module("runtime.tools.mcp"), name)
