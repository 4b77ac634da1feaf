"""A task tree with tasks of your own: the model can write nothing that is not an instance of these classes."""

from typing import Literal

from pydantic import BaseModel

from runtime import Engine
from runtime.tasks import ToolUse
from runtime.tasks.events import FieldClosed, ToolAnswered
from runtime.tools.calculator import calc


class Sum(BaseModel):
    thought: str
    tooluse: ToolUse[Literal["calc"]]
    conclusion: str


class Part(BaseModel):
    thought: str
    subtasks: list[Sum]  # forgotten when the part has its conclusion
    conclusion: str


class Whole(BaseModel):
    thought: str
    subtasks: list[Part]
    conclusion: str


engine = Engine.load()
run = engine.reason("What is (3+4)*5?", [calc], tasks=[Whole])
for event in run:
    match event:
        case FieldClosed(node=node, field=field):
            print("  " * len(node) + f"{field}: {run.tree.node(node).fields[field]}")
        case ToolAnswered(node=node, result=result):
            print("  " * len(node) + f"calc says {result}")
print("answer:", run.answer)
engine.close()
