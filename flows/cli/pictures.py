"""Pictures at a terminal: a PNG where it takes one, else values as a row of bars.

Our own few lines: a library that plots in text draws axes and legends that need a whole screen, for curves of which
one wants to see that they fall.
"""

import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence

BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-=+*#@"
MOST = 30  # bars: a line has 80 columns
KITTY_CHUNK = 4096  # of base64; the protocol's limit
LOGARITHMIC = 20.0  # from this ratio on, as of losses that fall by powers of ten


def bars(values: Sequence[float], is_ascii: bool = False) -> str:
    """A bar for each value, or for as many as there is room for; the smallest is lowest."""
    every = math.ceil(len(values) / MOST)
    shown = [*values[:-1:every], values[-1]]
    if min(shown) > 0 and max(shown) / min(shown) > LOGARITHMIC:
        shown = [math.log(value) for value in shown]
    low, height = min(shown), max(shown) - min(shown)
    letters = ASCII if is_ascii else BLOCKS
    return "".join(letters[round((value - low) / height * (len(letters) - 1)) if height else 0] for value in shown)


def protocol(environment: Mapping[str, str]) -> Callable[[bytes], str] | None:
    """What a terminal is to be sent for a PNG, by what it says of itself; None where it takes none.

    Within tmux and screen, which pass no pictures on, it is None.
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return _kitty
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return _iterm
    return None


def _kitty(png: bytes) -> str:
    """https://sw.kovidgoyal.net/kitty/graphics-protocol: PNG, shown at once, in chunks of which the last has m=0."""
    text = b64encode(png).decode()
    chunks = [text[start : start + KITTY_CHUNK] for start in range(0, len(text), KITTY_CHUNK)]
    first = ["a=T,f=100,", *[""] * len(chunks)]
    return "".join(
        f"\x1b_G{control}m={int(number < len(chunks))};{chunk}\x1b\\"
        for number, (control, chunk) in enumerate(zip(first, chunks, strict=False), 1)
    )


def _iterm(png: bytes) -> str:
    """https://iterm2.com/documentation-images.html."""
    return f"\x1b]1337;File=inline=1;size={len(png)};preserveAspectRatio=1:{b64encode(png).decode()}\a"
