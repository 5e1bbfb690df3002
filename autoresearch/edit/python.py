"""Compares Python programs by what they do: comments, layout and random seeds do not count.

Invariants: a program is parsed, never executed. Two programs that differ only in comments, docstrings or
layout have the same fingerprint. Two programs that also differ in the random numbers they draw, and in
nothing else, are the same `without_seeds`. A seed is known by its name or by its use: a constant that is
passed only to random generators is a seed, whatever its name.

Seeds matter although the judge chooses the seed of each trial: a script that sets its own seed before it
builds the model starts every trial from the same weights. If those weights happen to be lucky, more trials
repeat the luck and cannot reveal it.

The size of a program counts what it says, not how it is laid out: the nodes of its syntax tree, and the bytes
of its literals, so that code in a string is not cheaper than code. It is told in lines of usual code.

Not covered: hidden seeds, such as a shuffled table of constants.
"""

from __future__ import annotations

import ast
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

ALONE = threading.RLock()
"""Hold this while making a syntax tree from text.

Before 3.11.8 and 3.12.2, CPython counts the depth of all trees under construction together. If garbage
collection lets another thread run, `ast.parse` may raise SystemError (python/cpython#106905). The proposer's
thread and the search's thread both parse.
"""

UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
"""CPython raises these for text that is not a program, or is nested too deeply."""

LITERAL_BYTES, SPARSE_BYTES, LINE = 4, 24, 9.0
"""So many bytes of a literal weigh as one node, and so do so many bytes of the whole text, comments and
layout included, which are far more than usual. So many nodes are a line of a usual script."""

SEED_ROUNDS = 20
"""A constant that reaches a random generator through more other names than this is not known as a seed."""

NO_SIZE = (ast.expr_context, ast.operator, ast.boolop, ast.unaryop, ast.cmpop)
"""Nodes that only say what kind their parent is of."""

REMEMBERED = 16
"""Number of texts whose syntax trees are cached, since a proposal is checked twice."""

GENERATORS = re.compile(
    r"default_rng|RandomState|Random|Generator|PCG64(DXSM)?|MT19937|Philox|SFC64|PRNGKey|set_rng_state|setstate"
)
"""Functions that make a random generator from their arguments, besides names that contain "seed"."""

DRAWS = re.compile(
    r"(rand|randn|randint)(_like)?|randperm|random|normal|standard_normal|uniform|bernoulli|multinomial"
    r"|poisson|integers|getrandbits|randrange|gauss|choices?|permutation"
)
"""Calls that only advance a random generator, if their value is not used."""


def parse(source: str) -> ast.Module:
    """The syntax tree of a program.

    Raises:
        UNPARSABLE: If the text is not a program.
    """
    with ALONE:
        return ast.parse(source)


def fingerprint(sources: Mapping[str, str]) -> str:
    """A hash that is equal for programs that differ only in comments, docstrings and layout.

    Args:
        sources: path -> text. Files that are not Python, or do not parse, count as they are.
    """
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path}\0{_normal(path, sources[path], seeds=True)}\0".encode())
    return digest.hexdigest()


def net_size(parent: Mapping[str, str], new: Mapping[str, str]) -> int:
    """How much a candidate adds (negative: removes), in lines of usual code, over all Python files."""

    def total(sources: Mapping[str, str]) -> float:
        return sum(code_size(text) for path, text in sources.items() if path.endswith(".py"))

    return round(total(new) - total(parent))


@lru_cache(maxsize=REMEMBERED)
def code_size(source: str) -> float:
    """Size of a Python file in lines of usual code; comments, docstrings and layout are free within reason.

    A file that cannot be parsed counts by its bytes; `check` refuses it.
    """
    size = len(source.encode("utf-8", "surrogatepass")) / SPARSE_BYTES
    try:
        nodes = list(ast.walk(parse(source)))
    except UNPARSABLE:
        return size / LINE
    free = {id(part) for node in nodes if _is_bare_string(node) for part in ast.walk(node)}
    counted = [node for node in nodes if id(node) not in free and not isinstance(node, NO_SIZE)]
    literals = sum(_literal_bytes(node.value) for node in counted if isinstance(node, ast.Constant))
    return max(len(counted) + literals / LITERAL_BYTES, size) / LINE


def _literal_bytes(value: object) -> int:
    """Bytes that a literal holds."""
    match value:
        case str():
            return len(value.encode("utf-8", "surrogatepass"))
        case bytes():
            return len(value)
        case bool():
            return 0
        case int():
            return value.bit_length() // 8
        case float() | complex():
            return len(repr(value)) // 2
        case _:
            return 0


def without_seeds(sources: Mapping[str, str]) -> dict[str, str]:
    """Path -> the program as text without its seeds, for comparison."""
    return {path: _normal(path, text, seeds=False) for path, text in sources.items()}


@lru_cache(maxsize=REMEMBERED)
def _normal(path: str, source: str, *, seeds: bool) -> str:
    """The syntax tree as text, without docstrings (and without what only sets a seed)."""
    if not path.endswith(".py"):
        return source
    try:
        tree: ast.AST = _Strip().visit(parse(source))
        if not seeds:
            tree = _seedless(tree)
        return ast.dump(tree)
    except UNPARSABLE:
        return source


def _is_bare_string(node: ast.AST) -> bool:
    """Whether a statement is a docstring or another string alone."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


class _Strip(ast.NodeTransformer):
    """Removes statements that are only a string."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if _is_bare_string(node) else self.generic_visit(node)


def _seedless(tree: ast.AST) -> ast.AST:
    """Change a tree in place: remove statements that only set a seed or draw unused numbers; blank seeds."""
    nodes = list(ast.walk(tree))
    reads = _reads(nodes)
    changed: ast.AST = _Seedless(_only_seeds(nodes, reads), _unread(nodes, reads)).visit(tree)
    return changed


def _is_seed(name: str) -> bool:
    return "seed" in name.lower()


def _name(node: ast.AST | None) -> str:
    """The last part of a name: `seed` for `numpy.random.seed`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_seeding(node: ast.AST) -> bool:
    name = _name(node.func) if isinstance(node, ast.Call) else ""
    return _is_seed(name) or GENERATORS.fullmatch(name) is not None


def _is_draw(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and DRAWS.fullmatch(_name(node.func)) is not None


def _reads(nodes: Iterable[ast.AST]) -> Counter[str]:
    """How often each name is read."""
    return Counter(n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


def _only_seeds(nodes: Sequence[ast.AST], everywhere: Mapping[str, int]) -> set[str]:
    """Names whose values are used only as seeds, directly or through another such name."""
    found: set[str] = set()
    for _ in range(SEED_ROUNDS):
        into: list[ast.AST] = []
        for node in nodes:
            if isinstance(node, ast.Call) and _is_seeding(node):
                into += [*node.args, *node.keywords]
            elif isinstance(node, ast.keyword) and node.arg and _is_seed(node.arg):
                into.append(node.value)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if all(_is_seed(_name(target)) or _name(target) in found for target in targets):
                    into.append(node.value)
        inner = {id(node) for tree in into for node in ast.walk(tree)} - {id(tree) for tree in into}
        seeds = _reads(node for tree in into if id(tree) not in inner for node in ast.walk(tree))
        names = {name for name, count in seeds.items() if count == everywhere[name]}
        if names <= found:
            break
        found |= names
    return found


def _unread(nodes: Iterable[ast.AST], reads: Mapping[str, int]) -> set[str]:
    """Names that are set and never read."""
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names - set(reads)


class _Seedless(ast.NodeTransformer):
    """Removes statements that only set a seed or draw unused numbers, and blanks arguments that are seeds.

    Args:
        seeds: Names that are seeds, besides those with "seed" in the name.
        unread: Names that are never read.
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

    def visit_AnnAssign(self, node: ast.AnnAssign | ast.AugAssign) -> ast.AST | None:
        return None if self._is(node.target) else self.generic_visit(node)

    visit_AugAssign = visit_AnnAssign

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
