"""The prompt of caption refinement, word for word as the paper gives it (section 3.1.3).

The paper does not say how its three parts are joined: here each is a line, and the example is announced as
one. The conversation is GeoChat's (its template llava_v1).
"""

import re

INSTRUCTION = " ".join(
    (
        "Generate a brief description of the remote sensing image,",
        "highlighting key features such as the terrain, environment, layout,",
        "or other notable elements visible in the image.",
    )
)
METACAPTION = "Description data of the image (insert the following data based on the actual image):"
TITLE = "[title]"  # what the paper writes in place of the old caption, after METACAPTION
EXAMPLE = " ".join(
    (
        "A satellite image of a coastal city with a network of roads,",
        "high-rise buildings, and a large harbor area.",
    )
)
SYSTEM = " ".join(
    (
        "A chat between a curious human and an artificial intelligence assistant.",
        "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    )
)
IMAGE = "<image>"
TEMPLATE = f"{SYSTEM} USER: {IMAGE}\n{INSTRUCTION}\n{METACAPTION} {TITLE}\nExample: {EXAMPLE} ASSISTANT:"
# Parts that are the same in every prompt.
FIXED = (SYSTEM, "USER:", INSTRUCTION, METACAPTION, f"Example: {EXAMPLE}", "ASSISTANT:")


def prompt(caption: str) -> str:
    """The prompt that asks for a new caption in place of `caption`."""
    # What looks like a control token of the model is text of strangers here.
    return TEMPLATE.replace(TITLE, " ".join(re.sub(r"</?\w+>", " ", caption).split()))
