"""A program without its luck: what only chooses random numbers is taken out, to compare the rest.

Invariant: programs that differ in nothing but which random numbers they draw look the same. Seeds are known
by their names and by what they are given to: a name used for nothing else is a seed, however it is called.

Not covered: seeds in disguise, such as a shuffled table of constants. Noise is what the judge is for.
"""

from __future__ import annotations

import ast
import re
from collections import Counter

GENERATORS = re.compile(
    r"default_rng|RandomState|Random|Generator|PCG64(DXSM)?|MT19937|Philox|SFC64|PRNGKey|set_rng_state|setstate"
)
"""Besides whatever has "seed" in its name: what makes a stream of random numbers from its arguments."""

DRAWS = re.compile(
    r"(rand|randn|randint)(_like)?|randperm|random|normal|standard_normal|uniform|bernoulli|multinomial"
    r"|poisson|integers|getrandbits|randrange|gauss|choices?|permutation"
)
"""Calls that do nothing but move a stream on, if their value is not used."""


def seedless(tree: ast.AST) -> ast.AST:
    """The tree, changed in place: no statement that only sets a seed or draws for nothing, seeds blanked."""
    changed: ast.AST = _Seedless(_only_seeds(tree), _unread(tree)).visit(tree)
    return changed


def _is_seed(name: str) -> bool:
    return "seed" in name.lower()


def _name(node: ast.AST | None) -> str:
    """The last part of a name: `seed` for `torch.random.seed`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_seeding(node: ast.AST) -> bool:
    name = _name(node.func) if isinstance(node, ast.Call) else ""
    return _is_seed(name) or GENERATORS.fullmatch(name) is not None


def _is_draw(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and DRAWS.fullmatch(_name(node.func)) is not None


def _reads(*trees: ast.AST) -> Counter[str]:
    """How often each name is read."""
    nodes = (node for tree in trees for node in ast.walk(tree))
    return Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def _only_seeds(tree: ast.AST) -> set[str]:
    """Names whose value goes into seeds and nowhere else, directly or by way of another such name."""
    everywhere = _reads(tree)
    found: set[str] = set()
    while True:
        into: list[ast.AST] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_seeding(node):
                into += [*node.args, *node.keywords]
            elif isinstance(node, ast.keyword) and node.arg and _is_seed(node.arg):
                into.append(node.value)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if all(_is_seed(_name(target)) or _name(target) in found for target in targets):
                    into.append(node.value)
        inner = {id(node) for tree in into for node in ast.walk(tree)} - {id(tree) for tree in into}
        seeds = _reads(*(tree for tree in into if id(tree) not in inner))
        names = {name for name, count in seeds.items() if count == everywhere[name]}
        if names <= found:
            return found
        found |= names


def _unread(tree: ast.AST) -> set[str]:
    """Names that are set and never read."""
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names - set(_reads(tree))


class _Seedless(ast.NodeTransformer):
    """Removes statements that only set a seed or draw for nothing, and blanks arguments that are a seed.

    Args:
        seeds: Names that are seeds, besides those that say so.
        unread: Names that nobody reads.
    """

    def __init__(self, seeds: set[str], unread: set[str]) -> None:
        self._seeds, self._unread = seeds, unread

    def _is(self, node: ast.AST | None) -> bool:
        return _is_seed(_name(node)) or (isinstance(node, ast.Name) and node.id in self._seeds)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        if _is_draw(value) or (isinstance(value, ast.Call) and _is_seed(_name(value.func))):
            return None
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        if all(self._is(target) for target in node.targets):
            return None
        idle = all(isinstance(t, ast.Name) and t.id in self._unread for t in node.targets)
        return None if idle and _is_draw(node.value) else self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return None if self._is(node.target) else self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST | None:
        return None if self._is(node.target) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _is_seeding(node):
            node.args, node.keywords = [], []
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg and _is_seed(node.arg):
            node.value = ast.Constant(value=0)
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        optional = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
        node.defaults = [self._blanked(a, d) for a, d in zip(optional, node.defaults, strict=True)]
        named = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        node.kw_defaults = [d and self._blanked(a, d) for a, d in named]
        return self.generic_visit(node)

    def _blanked(self, argument: ast.arg, default: ast.expr) -> ast.expr:
        return ast.Constant(value=0) if _is_seed(argument.arg) or argument.arg in self._seeds else default
