"""Takes a block of memory and gives it back: what does the harness tell of it?

A script, so that nobody else's memory is measured. Prints one JSON object.
"""

import json

import harness

_MIB = 2**20


def main() -> dict[str, int]:
    """Return the peaks before a block and with it, what is held without it, and the peak since."""
    harness.reset_peak_rss()
    before = harness.peak_rss_bytes()
    block = bytearray(64 * _MIB)
    block[::4096] = b"x" * len(block[::4096])
    with_block = harness.peak_rss_bytes()
    del block
    harness.reset_peak_rss()
    return {
        "before": before,
        "with_block": with_block,
        "held": harness.rss_bytes(),
        "after": harness.peak_rss_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
