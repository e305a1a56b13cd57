"""What the notebooks share, one job a file: data, augment, models, train, runs, predict, metrics, plots, report."""
