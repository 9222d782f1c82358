"""Which prompts begin alike: the tree of shared prefixes that a prefix cache can find again.

A node (`sim.records.PREFIX`) is a piece of text that several prompts have in common, behind the text of its
parent. A cohort's ``prefix`` gives one root a group. A Mooncake trace names each block of 512 tokens by a
hash of it and all text before (Qin et al., "Mooncake", FAST 2025), so two prompts share as many tokens as
their lists of hashes have in common from the start.
"""

import numpy as np

from sim.records import PREFIX

BLOCK_TOKENS = 512
"""Tokens that one hash of a Mooncake trace stands for."""


def roots(groups: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the tree (`PREFIX`) in which the i-th cohort has *groups* [i] roots of *tokens* [i] tokens each."""
    tree = np.zeros(int(groups.sum()), PREFIX)
    tree["parent"] = -1
    tree["tokens"] = np.repeat(tokens, groups)
    return tree


def fit(rows: np.ndarray, tree: np.ndarray) -> None:
    """Move ``prefix`` of *rows* (REQUEST) up the *tree* until it is shorter than the prompt; fill in its tokens.

    The last token of a prompt is computed in any case: the answer begins from it. What is cut inside a root
    shares nothing.
    """
    if not len(tree):
        return
    node, room = rows["prefix"].copy(), rows["prompt_tokens"] - 1
    tokens = _depth(tree, node)
    while len(deep := np.flatnonzero(tokens > room)):
        node[deep] = tree["parent"][node[deep]]
        tokens[deep] = _depth(tree, node[deep])
    rows["prefix"], rows["prefix_tokens"] = node, tokens


def _depth(tree: np.ndarray, node: np.ndarray) -> np.ndarray:
    """Return the tokens from the root to the end of each *node* (-1: 0)."""
    tokens = tree["tokens"][node]
    tokens[node < 0] = 0
    return tokens


def of_blocks(blocks: np.ndarray, counts: np.ndarray, prompt_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tree (`PREFIX`) of prompts given as hashes of blocks, and each prompt's node (int64, -1: none).

    *blocks* (int64) holds *counts* [i] hashes of the i-th prompt, one list behind the other. A prompt's node is
    the deepest on its path that another prompt shares, without its own last token. The tree is compact: a node
    ends exactly where prompts part or end. Parents stand before their children.
    """
    start = np.cumsum(counts) - counts
    known = np.minimum(counts * BLOCK_TOKENS, prompt_tokens)
    usable = np.minimum(known, prompt_tokens - 1)
    walk = _Walk(len(counts))
    together, begin = np.flatnonzero(usable > 0), 0
    while len(together):
        block = blocks[start[together] + begin // BLOCK_TOKENS]
        filled = np.minimum(known[together] - begin, BLOCK_TOKENS)  # a last, shorter block is a text of its own
        together = walk.step(together, np.unique(block, return_inverse=True)[1] * (BLOCK_TOKENS + 1) + filled,
                             begin + filled - 1)  # fmt: skip
        begin += BLOCK_TOKENS
        together = together[usable[together] >= begin]
        together = walk.step(together, np.zeros(len(together), np.int64), np.full(len(together), begin))
        together = together[usable[together] > begin]
    return walk.compact()


class _Walk:
    """Prompts that walk down their texts together: where they stand, and the nodes they came by."""

    def __init__(self, prompts: int) -> None:
        self.node = np.full(prompts, -1, np.int64)
        self.nodes = 0
        nobody = np.zeros(0, np.int64)
        self.passed = [(nobody, nobody, nobody)]  # parent, tokens, prompts that came by

    def step(self, prompts: np.ndarray, text: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Let *prompts* go on over *text* (int64, small) until *tokens*; return those that are not alone then."""
        _, first, which, sharers = np.unique(
            (self.node[prompts] + 1) * (text.max(initial=0) + 1) + text,
            return_index=True,
            return_inverse=True,
            return_counts=True,
        )
        shared = sharers > 1
        first = first[shared]
        self.passed.append((self.node[prompts[first]], tokens[first], sharers[shared]))
        number = self.nodes + np.cumsum(shared) - 1
        self.nodes += len(first)
        prompts, which = prompts[shared[which]], which[shared[which]]
        self.node[prompts] = number[which]
        return prompts

    def compact(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tree without nodes that all their prompts leave by the same child, and the prompts' nodes."""
        parent, tokens, sharers = (np.concatenate(column) for column in zip(*self.passed))
        most = np.zeros(self.nodes + 1, np.int64)  # the last is for those without a parent
        np.maximum.at(most, parent, sharers)
        kept = np.append(most[:-1] < sharers, True)  # nobody stays in a node that all leave
        above = np.append(parent, -1)
        while not kept[above].all():
            above = np.where(kept[above], above, above[above])
        number = np.append(np.cumsum(kept[:-1]) - 1, -1)
        kept, above = kept[:-1], above[:-1]
        tree = np.zeros(int(kept.sum()), PREFIX)
        tree["parent"], tree["tokens"] = number[above[kept]], tokens[kept]
        return tree, number[self.node]
