"""The report page: one HTML file with tables, plots and example images."""
