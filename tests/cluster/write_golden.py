"""Writes anew what helm and kustomize render now: tests/golden/chart, and manifests/jobs."""

from rendering import CHART, ROOT, job_files, template

if __name__ == "__main__":
    for name in ("demo", "production"):
        golden = ROOT / "tests" / "golden" / "chart" / f"{name}.yaml"
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(template(CHART / "ci" / f"{name}-values.yaml").stdout)
    for name, text in job_files().items():
        (ROOT / "manifests" / "jobs").mkdir(exist_ok=True)
        (ROOT / "manifests" / "jobs" / name).write_text(text)
