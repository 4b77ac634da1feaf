"""Tools of MCP servers (Model Context Protocol), by the `mcp` library."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, suppress
from functools import partial
from threading import Thread
from typing import IO, Any

import mcp_types
from mcp import Client, MCPError, StdioServerParameters, stdio_client

from runtime.errors import MisdeclaredTool, ToolFailed, ToolServerFailed, first_line
from runtime.tools.calling import Tool

# How long we wait for a server to end, in seconds; the library kills one that does not within less.
_CLOSING = 15.0
# How much later than a call's time is up the server is told so, in seconds; the caller is told first, in our words.
_GRACE = 1.0


class McpServer:
    """An MCP server and its `tools`; started by `command`, or reached at `url` over streamable HTTP.

    Use it in a `with` statement, or `close()` it. One thread with an event loop serves all its calls, any number at once.
    `env` is added to the few variables that the library passes on (PATH, HOME and the like). `timeout` (seconds) and
    `max_result` (characters of JSON) hold for each call, `start_timeout` (seconds) for the start. A server that later dies,
    hangs or answers an error gives error results.

    Raises:
        ToolServerFailed: the server cannot be started or reached, or does not say within `start_timeout` what it offers.
        MisdeclaredTool: a limit is out of its range, or the server offers what is no tool.
    """

    def __init__(
        self,
        command: str | None = None,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        *,
        url: str | None = None,
        timeout: float = 30.0,
        max_result: int = 4000,
        start_timeout: float = 30.0,
    ) -> None:
        if (command is None) == (url is None):
            raise ToolServerFailed("McpServer needs either the command that starts a server or the url where one listens.")
        self.name = url or " ".join([str(command), *args])
        self._timeout, self._start_timeout = timeout, start_timeout
        ready: Future[list[mcp_types.Tool]] = Future()
        self._thread = Thread(target=self._serve, args=(ready, command, args, env, url), name="mcp", daemon=True)
        self._thread.start()
        offered = ready.result()
        try:
            self.tools = [
                Tool(each.name, each.description or "", each.input_schema, partial(self._call, each.name), timeout, max_result)
                for each in offered
            ]
        except MisdeclaredTool:
            self.close()
            raise

    def close(self) -> None:
        """End the connection, and the process if we started it. Later calls give error results."""
        with suppress(RuntimeError):  # a connection that broke has closed its loop
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_CLOSING)

    def __enter__(self) -> McpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(
        self,
        ready: Future[list[mcp_types.Tool]],
        command: str | None,
        args: Sequence[str],
        env: Mapping[str, str] | None,
        url: str | None,
    ) -> None:
        """The thread: connects, says what the server offers, and lives until `close`."""
        # What a server says on its standard error must not run into the terminal, but may say why it does not start.
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            try:
                if command is None:
                    assert url is not None
                    client = Client(url)
                else:
                    client = Client(
                        stdio_client(StdioServerParameters(command=command, args=list(args), env=dict(env or {})), said)
                    )
                asyncio.run(self._live(client, ready))
            except BaseException as fault:
                if not ready.done():
                    ready.set_exception(ToolServerFailed(f"The MCP server '{self.name}' {self._why(fault, said)}"))

    async def _live(self, client: Client, ready: Future[list[mcp_types.Tool]]) -> None:
        self._client, self._loop, self._closing = client, asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as connected:
            async with asyncio.timeout(self._start_timeout):
                await connected.enter_async_context(client)
                offered = await _list_tools(client)
            ready.set_result(offered)
            await self._closing.wait()

    def _why(self, fault: BaseException, said: IO[str]) -> str:
        """The end of a sentence on why the server did not start."""
        while isinstance(fault, BaseExceptionGroup):
            fault = fault.exceptions[0]
        if isinstance(fault, TimeoutError):
            return f"did not say within {self._start_timeout:g} seconds what it offers: give it more by start_timeout."
        said.seek(0)
        last = next(reversed(said.read().strip().splitlines()), "")
        why = f"{type(fault).__name__}: {first_line(fault)}" if isinstance(fault, Exception) else type(fault).__name__
        return f"could not be reached ({last[:300] or why}): check the command or the url."

    def _call(self, name: str, parameters: dict[str, Any]) -> Any:
        gone = f"The MCP server of the tool '{name}' is gone: it was closed, or it failed."
        if self._loop.is_closed():
            raise ToolFailed(gone)
        calling = self._client.call_tool(name, parameters, read_timeout_seconds=self._timeout + _GRACE)
        try:
            result = asyncio.run_coroutine_threadsafe(calling, self._loop).result(self._timeout + 2 * _GRACE)
        except CancelledError as fault:
            raise ToolFailed(gone) from fault
        except MCPError as fault:
            raise ToolFailed(gone if fault.code == mcp_types.CONNECTION_CLOSED else fault.message) from fault
        if result.is_error:
            raise ToolFailed(str(_content(result)))
        return _content(result)


async def _list_tools(client: Client) -> list[mcp_types.Tool]:
    page = await client.list_tools()
    tools = page.tools
    while page.next_cursor is not None:
        page = await client.list_tools(cursor=page.next_cursor)
        tools += page.tools
    return tools


def _content(result: mcp_types.CallToolResult) -> Any:
    """The structured result if there is one, else the text; JSON in the text is read."""
    if result.structured_content is not None:
        # A value that is no object comes wrapped in one.
        return (
            result.structured_content["result"] if list(result.structured_content) == ["result"] else result.structured_content
        )
    text = "\n".join(
        block.text if isinstance(block, mcp_types.TextContent) else f"[{block.type} left out]" for block in result.content
    )
    try:
        return json.loads(text)
    except ValueError:
        return text
