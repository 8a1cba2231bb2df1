"""Run blocks of one page, in order, in this process and folder: each block in a namespace of its own.

Its argument is JSON: the page's name and its blocks. `adabelief` commands run in processes of their own, which find the
modules that the page has written.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).parent))
from pages import SHELL, Block, commands


def main(page, blocks):
    sys.path.insert(0, "")
    for block in (Block(**fields) for fields in blocks):
        if block.title:
            Path(block.title).write_text(block.text)
        if block.language == "python":
            # A traceback then shows the page's own lines.
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            exec(code, {"__name__": "__main__"})
        elif block.language in SHELL:
            for words in commands(block.text):
                if words[0] == "adabelief":
                    run([sys.executable, "-m", "adabelief_core", *words[1:]], f"{page}:{block.line}")


def run(command, where):
    if "parity" in command and "--adapter" not in command:
        command = [*command, "--adapter", "numpy"]  # all of them are the parity tests' business, and take a minute
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{where}: {' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
