"""Writes tests/golden/chart anew from what helm renders now: look at the difference."""

from rendering import CHART, ROOT, template

if __name__ == "__main__":
    for name in ("demo", "production"):
        golden = ROOT / "tests" / "golden" / "chart" / f"{name}.yaml"
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(template(CHART / "ci" / f"{name}-values.yaml").stdout)
