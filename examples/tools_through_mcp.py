"""Reason with the tools of an MCP server, which runs as a process of its own."""

import sys
from pathlib import Path

from runtime import Engine, McpServer
from runtime.tasks.events import ListPruned, ToolAnswered, ToolRequested

engine = Engine.load()
with McpServer(sys.executable, [str(Path(__file__).with_name("family_server.py"))]) as family:
    run = engine.reason("Who is the sister of Maud's friend?", family.tools, keep=0)
    for event in run:
        match event:
            case ToolRequested(tool_name=name, parameters=parameters):
                print(f"{name}({parameters})", end=" -> ", flush=True)
            case ToolAnswered(result=result):
                print(result)
            case ListPruned(inside=inside):
                print(f"-- {inside.tokens[1] - inside.tokens[0]} tokens leave the context")
print("answer:", run.answer)
print(f"{run.stats.emitted_tokens} tokens written, at most {run.stats.peak_tokens} in memory")
engine.close()
