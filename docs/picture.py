"""Takes the picture of the README: `python docs/picture.py` runs the program and writes what a terminal shows to docs/story.svg."""

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
STARTER = "stories/starters/lighthouse.txt"
PREMISE = (ROOT / STARTER).read_text("utf-8").strip()


def main() -> None:
    options = ["--paragraphs", "4", "--seed", "1"]
    with tempfile.TemporaryDirectory() as stories:
        command = ["write", "--premise", PREMISE, *options, "--stories", stories]
        ran = subprocess.run(
            [sys.executable, str(ROOT / "app.py"), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
        )
    console = Console(record=True, width=100, file=sys.stderr)
    console.print(Text(f'$ recurrent-writer write --premise "$(cat {STARTER})" {" ".join(options)}\n', style="bold"))
    for line in ran.stdout.decode().replace(stories, "stories").splitlines():
        console.print(Text(line, style="dim" if "tokens/s" in line or line.startswith("stories") else ""))
    console.save_svg(str(ROOT / "docs" / "story.svg"), title="recurrent-writer")


if __name__ == "__main__":
    main()
