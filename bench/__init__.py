"""The engine of the ablation suite. It knows no axis by name; see docs/architecture.md."""
