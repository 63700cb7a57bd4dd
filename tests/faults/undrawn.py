"""`run_all.py` without plots: drawing them takes longer than the smallest cells."""

import sys

import run_all

if __name__ == "__main__":  # a cell's process imports this too
    import bench.report.plots

    bench.report.plots.write_plots = lambda analysis: []
    sys.exit(run_all.main())
