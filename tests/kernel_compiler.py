"""Reads {"spec": …, "targets": […]} from stdin, compiles, and prints what came of it as JSON.

Run as a script by `kernels.compile_for`, without Triton's interpreter and without a GPU.
"""

import importlib
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MATRIX = ("HGMMA", "IGMMA", "QGMMA", "HMMA", "IMMA", "QMMA")


def compiled(spec: dict, target: int) -> dict:
    kernel = getattr(importlib.import_module(spec["module"]), spec["name"])
    names = kernel.arg_names
    constants = spec["constants"]
    source = ASTSource(
        fn=kernel,
        signature={n: "constexpr" if n in constants else spec["types"][n] for n in names},
        constexprs=constants,
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in spec["aligned"]},
    )
    options = {
        "num_warps": spec["num_warps"],
        "num_stages": spec["num_stages"],
        "enable_fp_fusion": True,
    }
    made = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(made.asm["cubin"])
        usage = tool("cuobjdump", "-res-usage", str(path))
        assembly = tool("nvdisasm", str(path))
    loads = Counter(width(name) for name in re.findall(r"\bLDG\.[\w.]+", assembly))
    # Copies to shared memory around the registers (cp.async) are loads as well.
    loads.update(width(name) for name in re.findall(r"\bLDGSTS\.[\w.]+", assembly))
    stores = Counter(width(name) for name in re.findall(r"\bSTG\.[\w.]+", assembly))
    return {
        "target": target,
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "stack_bytes": int(re.search(r"STACK:(\d+)", usage)[1]),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", assembly)),
        "shared_bytes": made.metadata.shared,
        "global_loads": dict(loads),
        "global_stores": dict(stores),
        "instructions": [name for name in MATRIX if re.search(rf"\b{name}\b", assembly)],
    }


def tool(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(TOOLS / name), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def width(instruction: str) -> str:
    """Return the bits of one access: "LDG.E.128" -> "128", "LDG.E.U8" -> "8", "LDG.E" -> "32"."""
    found = re.search(r"\.(?:[US])?(8|16|64|128)\b", instruction)
    return found[1] if found else "32"


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps([compiled(asked["spec"], target) for target in asked["targets"]]))
