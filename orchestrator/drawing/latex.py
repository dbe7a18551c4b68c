"""A matrix as a LaTeX table, with rules of the package booktabs."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.drawing.blocks import Matrix, MatrixCell

_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"ε": r"$\varepsilon$", "∞": r"$\infty$", "−": "$-$", "–": "--", "●": r"$\bullet$", "○": r"$\circ$"},
    # LaTeX's default font has other signs in the places of these: "<" is printed as an inverted exclamation mark.
    **{"<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "“": "``", "”": "''"},
    # These it refuses.
    **{"₁": "$_1$", "₂": "$_2$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$", "→": r"$\to$"},
    **{"\n": " ", "\r": " ", "\N{NO-BREAK SPACE}": "~"},
}


def latex(matrix: Matrix, warnings: Sequence[str] = ()) -> str:
    """A `tabular` of the matrix; each line of a cell takes one row, states in italics, the best bold.

    The note, which has the units and what is bold, and the warnings of its page are comments above it.
    """
    names = len(matrix.header) - len(matrix.rows[0][1])
    columns = "l" * names + "r" * (len(matrix.header) - names)
    comments = ["\\usepackage{booktabs}", escaped(matrix.title), *map(escaped, filter(None, [matrix.note, *warnings]))]
    lines = [*(f"% {comment}" for comment in comments), f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines.append(f"{' & '.join(map(escaped, matrix.header))} \\\\")
    lines.append("\\midrule")
    for left, entries in matrix.rows:
        for line_number in range(max(len(entry.lines) for entry in entries)):
            cells = [escaped(name) if line_number == 0 else "" for name in left]
            # Behind the end of a row these would be read as its argument.
            cells[0] = f"{{{cells[0]}}}" if cells[0][:1] in ("[", "*") else cells[0]
            cells += [_line(entry, line_number) for entry in entries]
            lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def _line(entry: MatrixCell, line_number: int) -> str:
    if line_number >= len(entry.lines):
        return ""
    text = escaped(entry.lines[line_number])
    if line_number:
        return f"{{\\footnotesize {text}}}"
    if entry.state == "best":
        return f"\\textbf{{{text}}}"
    return f"\\textit{{{text}}}" if entry.state in ("not run", "running", "failed") else text
