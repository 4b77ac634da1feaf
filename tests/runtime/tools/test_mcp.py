"""Tools of real MCP servers, over a pipe and over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runtime.errors import MisdeclaredTool, ToolServerFailed
from runtime.tools import McpServer, ToolCall, answer

PROGRAM = str(Path(__file__).with_name("mcp_server.py"))


@pytest.fixture(scope="module")
def server():
    with McpServer(sys.executable, [PROGRAM], {"FLAVOUR": "plum"}, timeout=10) as server:
        yield server


def named(server, name):
    return next(tool for tool in server.tools if tool.name == name)


def call(server, name, /, **parameters):
    return answer(named(server, name), parameters)


def test_a_server_says_what_it_offers(server):
    assert [tool.name for tool in server.tools] == ["add", "say", "refuse", "hang", "crash", "variable"]
    add = named(server, "add")
    assert add.description == "The sum of two numbers."
    assert add.parameters["properties"]["a"]["type"] == "integer"
    assert (add.timeout, add.max_result) == (10, 4000)


def test_a_value_comes_out_of_its_wrapping(server):
    assert call(server, "add", a=2, b=3).value == 5


@pytest.mark.parametrize(("text", "value"), [("hello", "hello"), ('{"a":[1]}', {"a": [1]})])
def test_a_text_is_a_string_or_the_json_that_it_holds(server, text, value):
    assert call(server, "say", text=text).value == value


def test_the_environment_is_passed_on(server):
    assert call(server, "variable", name="FLAVOUR").value == "plum"


def test_an_error_of_the_server_is_an_error_result(server):
    result = call(server, "refuse", reason="not today")
    assert result.error
    assert "not today" in result.value["error"]


def test_parameters_that_the_server_refuses_are_an_error_result(server):
    result = call(server, "add", a="x")
    assert result.error
    assert "valid integer" in result.value["error"]


def test_calls_run_beside_each_other(server):
    slow = ToolCall(named(server, "hang"), {})
    assert call(server, "add", a=1, b=1).value == 2
    assert not slow.done()


def test_a_server_that_hangs_gives_an_error_result_in_time():
    with McpServer(sys.executable, [PROGRAM], timeout=0.3) as server:
        result = call(server, "hang")
    assert result.value == {"error": "The tool 'hang' did not answer within 0.3 seconds."}


def test_a_server_that_dies_gives_error_results():
    with McpServer(sys.executable, [PROGRAM], timeout=20) as server:
        during, after = call(server, "crash"), call(server, "add", a=1, b=1)
    assert during.error
    assert after.error
    assert during.value == {"error": "The MCP server of the tool 'crash' is gone: it was closed, or it failed."}
    assert during.seconds < 10


def test_a_closed_server_gives_error_results():
    server = McpServer(sys.executable, [PROGRAM], timeout=20)
    slow = ToolCall(named(server, "hang"), {})
    server.close()
    server.close()
    assert slow.result().value == {"error": "The MCP server of the tool 'hang' is gone: it was closed, or it failed."}
    assert call(server, "add", a=1, b=1).value == {
        "error": "The MCP server of the tool 'add' is gone: it was closed, or it failed."
    }


def test_a_server_is_let_go_when_its_limits_are_refused():
    before = {thread for thread in threading.enumerate() if thread.name == "mcp"}
    with pytest.raises(MisdeclaredTool, match="timeout of 0 seconds"):
        McpServer(sys.executable, [PROGRAM], timeout=0)
    assert {thread for thread in threading.enumerate() if thread.name == "mcp"} == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"command": "no-such-server"}, r"'no-such-server' could not be reached \(FileNotFoundError.*check the command"),
        ({"command": sys.executable, "args": ["-c", "raise SystemExit('bad day')"]}, r"could not be reached \(bad day\)"),
        (
            {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"], "start_timeout": 0.5},
            "did not say within 0.5 seconds what it offers",
        ),
        ({"url": "http://127.0.0.1:1/mcp"}, "'http://127.0.0.1:1/mcp' could not be reached"),
        ({}, "either the command that starts a server or the url"),
        ({"command": "a", "url": "b"}, "either the command that starts a server or the url"),
    ],
)
def test_a_server_that_cannot_be_had_is_said_in_a_sentence(arguments, why):
    with pytest.raises(ToolServerFailed, match=why):
        McpServer(**arguments)


def test_a_server_is_reached_over_http():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, PROGRAM, str(port)], stderr=subprocess.DEVNULL)
    try:
        with connect(f"http://127.0.0.1:{port}/mcp") as server:
            assert call(server, "add", a=2, b=3).value == 5
            assert "not now" in call(server, "refuse", reason="not now").value["error"]
            assert call(server, "crash").error
    finally:
        process.kill()
        process.wait()


def connect(url):
    """A server that may still be starting."""
    for _ in range(100):
        try:
            return McpServer(url=url, timeout=10)
        except ToolServerFailed:
            time.sleep(0.2)
    raise AssertionError("the server did not start")
