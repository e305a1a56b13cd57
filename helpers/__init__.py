"""What the notebooks share, one job a file.

config, data, augment, models, inference, train, runs, predict, metrics, reference, plots, notebook, and report/;
torchvision_compat is how torchvision is imported.
"""
