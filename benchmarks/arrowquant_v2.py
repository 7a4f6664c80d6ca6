"""What ArrowQuant V2 expected beside what is measured: the tables of docs/optimizations.md.

pytest --arrowquant-accuracy [--arrowquant-scale=full]
python benchmarks/arrowquant_v2.py [.arrowquant/accuracy.json]
"""

import sys

from pytest_arrowquant import load_report

CLAIMED_COSINE = {
    2: ("0.60 to 0.65", "0.70 to 0.75"),
    4: ("0.80 to 0.85", "0.90 to 0.93"),
    8: ("0.90 to 0.93", "0.95 to 0.97"),
}
CLAIMED_GAIN = {"time_aware": "+3 to +5", "spatial": "+5 to +10", "all": "+8 to +15"}


def spread(values: list[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def main(path: str) -> None:
    recipes = [record for record in load_report(path)["records"] if record["recipe"]]

    def values(recipe: str, bits: int, metric: str, of: str = "metrics") -> list[float]:
        return [
            record[of][metric]
            for record in recipes
            if record["recipe"] == recipe
            and record["scheme"]["bits"] == bits
            and record["activations"]["bits"] == 8
        ]

    print(
        "| bits | expected baseline | weights | outputs | expected optimized | all | recommended |"
    )
    print("|---|---|---|---|---|---|---|")
    for bits, (baseline, optimized) in CLAIMED_COSINE.items():
        cells = (
            spread(values("baseline", bits, "cosine"), ".5f"),
            spread(values("baseline", bits, "output_cosine"), ".5f"),
            optimized,
            spread(values("all", bits, "output_cosine"), ".5f"),
            spread(values("recommended", bits, "output_cosine"), ".5f"),
        )
        print(f"| {bits} | {baseline} | {' | '.join(cells)} |")
    print()
    print("| optimization | expected, points | W2A8 | W4A8 | W8A8 |")
    print("|---|---|---|---|---|")
    for recipe, expected in CLAIMED_GAIN.items():
        cells = []
        for bits in CLAIMED_COSINE:
            points = [100 * gain for gain in values(recipe, bits, "cosine", "improvement")]
            db = values(recipe, bits, "sqnr_db", "improvement")
            cells.append(f"{spread(points, '+.2f')} ({spread(db, '+.1f')} dB)")
        print(f"| {recipe} | {expected} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".arrowquant/accuracy.json")
