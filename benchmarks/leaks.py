"""What the leakage certificate does with planted leaks, and with honest columns that look like them.

    python benchmarks/leaks.py [--out docs/benchmarks]
"""

import argparse
from pathlib import Path

from cryptoalgo.features.planted import trial_table

WORDS = {True: "yes", False: "no"}


def rows(table, head: list[str], values) -> list[str]:
    "A table of Markdown."
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(str(v).replace("|", "\\|") for v in values(name, row)) + " |" for name, row in table.iterrows()]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "benchmarks")
    args = options.parse_args()
    table = trial_table()
    planted, clean = table[table["planted"]], table[~table["planted"]]
    lines = ["# Planted leaks", "", "Every mistake below was made on purpose, on simulated hours, beside honest columns, and put on trial. *Located*: the first bar that the "
             "certificate names is the first that could show the mistake.", "",
             f"Planted: {len(planted)}. Caught: {planted['caught'].sum()}. Located: {planted['located'].sum()}. "
             f"Honest but suspicious: {len(clean)}. Accused: {clean['caught'].sum()}.", ""]
    lines += rows(planted, ["leak", "kind", "what is wrong", "caught", "located", "by"],
                  lambda name, r: (f"`{name}`", r["kind"], r["what"], WORDS[bool(r["caught"])], WORDS[bool(r["located"])], r["tests"]))
    lines += ["", "## Honest, though they look like leaks", ""]
    lines += rows(clean, ["column", "kind", "why it looks suspicious", "accused"], lambda name, r: (f"`{name}`", r["kind"], r["what"], WORDS[bool(r["caught"])]))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "leaks.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[:5]))


if __name__ == "__main__":
    main()
